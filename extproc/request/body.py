"""What a request's body says: model, stream, the size of the input and the limit of the output.

The body comes from a client and may be anything; reading it never raises. Each top-level field is cut out
raw and then read on its own, so that a field of odd shape hides no other. Fields that are not asked for
are skipped by the parser. The field names are the OpenAI API's as vLLM serves it
(https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html).

A large body is condensed first. If it is still large, or has very many values, its input is sized by its
bytes: looking at each value would block the event loop.
"""

import codecs
import re
from typing import Annotated, Final

import msgspec
from msgspec import Raw

from extproc.request.chat import messages_size
from extproc.request.condense import condense
from extproc.request.literal import IDS_MARK, ODD_SHAPE, TEXT_MARK, count_byte, field_bytes, json_bytes
from extproc.request.prompt import prompt_size
from extproc.request.request import InputSize, RequestKind

# Measured: condensing pays from here on, and the worst that is looked at closely takes about 15 ms.
_CONDENSE_FROM_BYTES: Final = 16 * 1024
# Measured: up to here the plain way is the shorter one for code and ASCII, by a factor of three, for 2,000
# short messages by one of ten; for other alphabets it is half as long again, and beyond this more than that.
_PLAIN_UP_TO_BYTES: Final = 80 * 1024
_LOOK_CLOSELY_UP_TO_BYTES: Final = 128 * 1024
_LOOK_CLOSELY_UP_TO_COMMAS: Final = 4096

_ABSENT: Final = Raw()
_OBJECT: Final = re.compile(rb"[ \t\n\r]{0,4096}+\{")  # megabytes of white space are not worth the time
_STRING: Final = msgspec.json.Decoder(str)
_TokenLimit = Annotated[int, msgspec.Meta(gt=0, le=2**31 - 1)]
_TOKEN_LIMIT: Final[msgspec.json.Decoder[int]] = msgspec.json.Decoder(_TokenLimit)


class BodyFacts(msgspec.Struct, frozen=True):
    """What was read of a body.

    Where it is not readable (no JSON object), `input_size` is the body's bytes taken as text and the rest
    is unknown. `token_limit` is None where it is absent, not a positive integer, or above 2**31 - 1.
    """

    model: str | None
    is_stream: bool
    input_size: InputSize
    token_limit: int | None
    is_readable: bool


class _Fields(msgspec.Struct, gc=False):
    model: Raw = _ABSENT
    stream: Raw = _ABSENT
    max_tokens: Raw = _ABSENT
    max_completion_tokens: Raw = _ABSENT
    max_output_tokens: Raw = _ABSENT
    messages: Raw = _ABSENT
    prompt: Raw = _ABSENT
    input: Raw = _ABSENT
    instructions: Raw = _ABSENT
    tools: Raw = _ABSENT


class _PlainMessage(msgspec.Struct, gc=False):
    """A message whose content is all of its text; of the other fields that may hold some there is nothing."""

    content: str
    name: None = None
    tool_calls: None = None
    arguments: None = None
    output: None = None


class _PlainChat(msgspec.Struct, gc=False):
    """What most chats are: text only, every field of the usual shape."""

    model: str
    messages: list[_PlainMessage]
    stream: bool = False
    max_tokens: _TokenLimit | None = None
    max_completion_tokens: _TokenLimit | None = None
    tools: None = None


_FIELDS: Final = msgspec.json.Decoder(_Fields)
_PLAIN_CHAT: Final = msgspec.json.Decoder(_PlainChat)


def read_body(kind: RequestKind, body: bytes) -> BodyFacts:
    """Read the body of a request of `kind`; never raises, whatever the bytes."""
    if kind is RequestKind.CHAT and len(body) <= _PLAIN_UP_TO_BYTES:
        facts = _plain_chat(body)
        if facts is not None:
            return facts
    condensed, fields = _parse(body)
    if fields is None:
        return unreadable(body)
    return BodyFacts(
        model=_model(fields.model),
        is_stream=bytes(fields.stream) == b"true",
        input_size=_input_size(kind, fields, body, condensed),
        token_limit=_token_limit(kind, fields),
        is_readable=True,
    )


def unreadable(body: bytes) -> BodyFacts:
    """The facts of a body that is not a JSON object."""
    return BodyFacts(None, False, InputSize(text_bytes=len(body)), None, False)


def _plain_chat(body: bytes) -> BodyFacts | None:
    """The facts of a chat of plain text, in a third of the time; None sends it down the long way."""
    try:
        chat = _PLAIN_CHAT.decode(body)
    except ODD_SHAPE:
        return None
    text_bytes = 0
    for message in chat.messages:
        text = message.content
        text_bytes += len(text) if text.isascii() else len(text.encode())
    limit = chat.max_completion_tokens or chat.max_tokens
    return BodyFacts(chat.model or None, chat.stream, InputSize(text_bytes), limit, True)


def _parse(body: bytes) -> tuple[bytes, _Fields | None]:
    """The JSON that was parsed, condensed or as it came, and its fields; None if it is not an object."""
    json = body.removeprefix(codecs.BOM_UTF8)
    if not _OBJECT.match(json) or TEXT_MARK in json or IDS_MARK in json:
        return json, None
    if len(json) > _CONDENSE_FROM_BYTES:
        condensed = condense(json)
        fields = _fields(condensed)
        if fields is not None or len(condensed) == len(json):
            return condensed, fields
    return json, _fields(json)


def _fields(json: bytes) -> _Fields | None:
    try:
        return _FIELDS.decode(json)
    except ODD_SHAPE:
        return None


def _model(raw: Raw) -> str | None:
    try:
        return _STRING.decode(raw) or None
    except ODD_SHAPE:
        return None


def _token_limit(kind: RequestKind, fields: _Fields) -> int | None:
    if kind is RequestKind.RESPONSES:
        return _positive(fields.max_output_tokens)
    if kind is RequestKind.CHAT:
        return _positive(fields.max_completion_tokens) or _positive(fields.max_tokens)
    return _positive(fields.max_tokens) if kind is RequestKind.COMPLETION else None


def _positive(raw: Raw) -> int | None:
    try:
        return _TOKEN_LIMIT.decode(raw) if raw else None
    except ODD_SHAPE:
        return None


def _input_size(kind: RequestKind, fields: _Fields, body: bytes, condensed: bytes) -> InputSize:
    if kind is RequestKind.OTHER:
        return InputSize(len(body))
    if _is_too_much(condensed):
        return InputSize(json_bytes(condensed))
    match kind:
        case RequestKind.CHAT:
            return _with_text(messages_size(fields.messages), field_bytes(fields.tools))
        case RequestKind.COMPLETION:
            return prompt_size(fields.prompt)
        case RequestKind.EMBEDDING:
            return prompt_size(fields.input) if fields.input else messages_size(fields.messages)
        case RequestKind.RESPONSES:
            other_bytes = field_bytes(fields.instructions) + field_bytes(fields.tools)
            return _with_text(messages_size(fields.input), other_bytes)


def _is_too_much(condensed: bytes) -> bool:
    if len(condensed) <= _LOOK_CLOSELY_UP_TO_COMMAS:
        return False
    commas = count_byte(condensed, b",")
    return len(condensed) > _LOOK_CLOSELY_UP_TO_BYTES or commas > _LOOK_CLOSELY_UP_TO_COMMAS


def _with_text(size: InputSize, text_bytes: int) -> InputSize:
    return (
        InputSize(size.text_bytes + text_bytes, size.exact_tokens, size.media_tokens) if text_bytes else size
    )
