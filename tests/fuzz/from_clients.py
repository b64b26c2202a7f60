"""What a client sends: its body, and its headers as Envoy passes them on."""

import zlib

import msgspec

from extproc.adapters.envoy.ext_proc_wire import decode, encode
from extproc.errors import ProtocolError
from extproc.exchange.messages import BodyReceived, Continue, HeadersReceived, Phase, Reject, RouteTo
from extproc.request.api import APIS, OTHER, TRANSCRIPTION
from extproc.request.body import read_body
from extproc.request.body_facts import BodyFacts, InputSize
from extproc.request.content import readable_content
from extproc.request.form import read_form
from extproc.request.request import MAX_PRIORITY, read_request
from extproc.request.token_ratio import TokenRatios

KNOWN_APIS = (*APIS, OTHER)
LONG = (b"a" * 5000, b"1, " * 2000, b"\\u6f22" * 900, b'\\"' * 2500, b"\xc3\xa4" * 2500, b"[[" * 2500)
"""What `~` stands for in a fuzzed body: large bodies take another path, and a fuzzer's inputs are small."""
ENCODINGS = ("", "gzip", "deflate", "zstd")
MOST_TOKENS_PER_BYTE = 4500
"""A video of no length at all, in a part of one byte; far more than any part needs."""


def body(data: bytes) -> None:
    """First the request's API, and what a long value is; then the body."""
    choice, text = data[:1] or b"\0", data[1:]
    api = KNOWN_APIS[choice[0] % len(KNOWN_APIS)]
    text = text.replace(b"~", LONG[choice[0] // len(KNOWN_APIS) % len(LONG)])
    facts = read_body(api, text)
    check_facts(facts, text)
    expected = _object(text)
    if expected is not None:
        assert facts.is_readable, "a JSON object is readable"
        model = expected.get("model")
        if isinstance(model, str) and len(model) < 4000:
            assert facts.model == (model or None)


def _object(text: bytes) -> dict[str, object] | None:
    """The strict parser's view; condensing is more lenient."""
    try:
        found = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def check_facts(facts: BodyFacts, text: bytes) -> None:
    assert facts.model != ""
    assert isinstance(facts.is_stream, bool)
    assert facts.token_limit is None or 0 < facts.token_limit < 2**31
    check_size(facts.input_size, text)


def check_size(size: InputSize, text: bytes) -> None:
    """A query counts with each of its documents, whose number is one more than that of the commas at most."""
    readings = text.count(b",") + 1
    assert 0 <= size.text_bytes <= readings * len(text)
    assert 0 <= size.exact_tokens <= len(text)
    assert 0 <= size.media_tokens <= readings * MOST_TOKENS_PER_BYTE * len(text)


def form(data: bytes) -> None:
    """First the boundary, an empty line, and the parts, of which `~` begins each one."""
    boundary, _, text = data.partition(b"\n\n")
    separator = b"\r\n--" + boundary
    text = b"--" + boundary + text.replace(b"~", separator) + separator + b"--\r\n"
    for api in (TRANSCRIPTION, OTHER):
        facts = read_form(api, text)
        if facts is not None:
            check_facts(facts, text)


def content(data: bytes) -> None:
    """First the encoding, then the body; and the body as it is in that encoding."""
    encoding = ENCODINGS[(data[:1] or b"\0")[0] % len(ENCODINGS)]
    readable_content(data[1:], encoding)
    packed = zlib.compress(data[1:], wbits=31) if encoding == "gzip" else zlib.compress(data[1:])
    if encoding in {"gzip", "deflate"} and not data[1:].startswith((b"\0", b"\xff", b"\xfe", b"{\0", b"[\0")):
        assert readable_content(packed, encoding) == data[1:]


def request(data: bytes) -> None:
    """Lines of `name: value`, an empty one, and the body; without an empty line there is none."""
    head, separator, text = data.partition(b"\n\n")
    lines = (line.partition(b": ") for line in head.split(b"\n"))
    headers = {name.decode("latin-1").lower(): value.decode("utf-8", "replace") for name, _, value in lines}
    request = read_request(headers, text if separator else None, TokenRatios())
    assert -MAX_PRIORITY <= request.priority <= MAX_PRIORITY
    assert request.has_body == bool(separator)
    assert request.body_bytes == len(text)
    assert (
        0 <= request.input_tokens <= MOST_TOKENS_PER_BYTE * max(len(text), 64 << 10) * (text.count(b",") + 1)
    )


def ext_proc(data: bytes) -> None:
    """One message of ext_proc; and its content taken for a header's value that goes back to Envoy."""
    try:
        event = decode(data)
    except ProtocolError:
        return
    if isinstance(event, HeadersReceived):
        request = read_request(event.headers, None, TokenRatios())
        text = request.path
    elif isinstance(event, BodyReceived):
        text = event.body.decode("utf-8", "replace")
    else:
        text = event.phase.value
        encode(Continue(event.phase))
    encode(RouteTo(Phase.REQUEST_BODY, "vllm-1", {"facts": text}))
    encode(Reject(503, text.encode(), {"x-extproc-reason": text}))
