"""Read a form (`multipart/form-data`, RFC 7578): the fields beside the files, never the files.

Audio and images come this way, with the model in a field. A body whose first line is a boundary is a form;
JSON never begins so. Only the heads of its parts are looked at, and values that are short; the rest is
searched for the next boundary, a nanosecond for each byte. As in a server, the last of two fields of one name
counts.
"""

import re
from collections.abc import Iterator
from typing import Final

from extproc.request.api import Api
from extproc.request.body_facts import MAX_TOKEN_LIMIT, BodyFacts, InputSize

_FIRST_LINE: Final = re.compile(rb"(?:\r\n){0,4}(--[^\r\n]{1,250}?)[ \t]*\r\n")
_NAME: Final = re.compile(
    rb'^content-disposition:[^\r\n]*?;[ \t]*name="?([^";\r\n]{1,64})', re.IGNORECASE | re.MULTILINE
)
_IS_FILE: Final = re.compile(
    rb"^content-disposition:[^\r\n]*?;[ \t]*filename\*?=", re.IGNORECASE | re.MULTILINE
)

_MAX_PARTS: Final = 128
"""Guessed: far more fields than any API has; what comes after them is not read."""

_MAX_HEAD_BYTES: Final = 4096
_MAX_VALUE_BYTES: Final = 4096
"""For a longer field only the length counts."""

_TRUE: Final = frozenset({b"true", b"1", b"on", b"t", b"yes", b"y"})
"""Borrowed from pydantic, which reads the forms of vLLM."""


def read_form(api: Api, body: bytes) -> BodyFacts | None:
    """Read the fields of a form, never raises; None for a body that is none."""
    begin = _FIRST_LINE.match(body)
    if begin is None:
        return None
    fields: dict[bytes, bytes] = {}
    text_bytes, files = 0, 0
    for name, value_bytes, value in _parts(body, begin.end(), b"\r\n" + begin[1]):
        if value is None:
            files += 1
        elif name.decode("latin-1") in api.input_fields:
            text_bytes += value_bytes
        fields[name] = value or b""
    size = InputSize(text_bytes=text_bytes, media_tokens=files * api.file_tokens)
    model = fields.get(b"model", b"").decode("utf-8", "replace") or None
    is_stream = fields.get(b"stream", b"").strip().lower() in _TRUE
    return BodyFacts(model, is_stream, size, _limit(api, fields), True)


def _parts(body: bytes, begin: int, boundary: bytes) -> Iterator[tuple[bytes, int, bytes | None]]:
    """Yield name, size and value of each part; a file has no value, that of a long field is empty."""
    for _ in range(_MAX_PARTS):
        head_end = body.find(b"\r\n\r\n", begin, begin + _MAX_HEAD_BYTES)
        end = body.find(boundary, begin)
        if head_end < 0 or head_end > end:
            return
        head, start = body[begin:head_end], head_end + 4
        name = _NAME.search(head)
        if name is not None:
            is_short = end - start <= _MAX_VALUE_BYTES
            value = None if _IS_FILE.search(head) else body[start:end] if is_short else b""
            yield name[1], max(0, end - start), value
        begin = body.find(b"\r\n", end + len(boundary)) + 2
        if begin < 2:
            return


def _limit(api: Api, fields: dict[bytes, bytes]) -> int | None:
    for name in api.token_limit_fields:
        value = fields.get(name.encode(), b"").strip()
        if value.isdigit() and len(value) <= 10 and 0 < int(value) <= MAX_TOKEN_LIMIT:
            return int(value)
    return None
