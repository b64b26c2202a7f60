"""Making a large body small before it is parsed: its long values are replaced by their sizes.

Nearly all of a large body is a few long values: a document, an image in base64, an array of token ids. A
JSON parser looks at each of their bytes several times, 20 ms and more for 10 MB, and the event loop waits.
Finding all quotes at once takes a tenth of that. A long string from quote to quote, and a long array of
numbers between two strings, is measured where it lies and replaced by a marked literal that holds its size
(`literal`); only the rest is parsed.

The replaced text is not validated: a body with a fault in there is routed as if it had none, and the
server refuses it. If the quotes mislead (a run of 64 backslashes, an unbalanced array), the result is not
JSON, and `body` parses the original instead.
"""

import re
from typing import Final

import numpy as np
import numpy.typing as npt

from extproc.request.literal import IDS_MARK, TEXT_MARK, count_byte, marked, text_bytes

# Guessed: below it a parser is about as fast as the replacement.
_LONG_BYTES: Final = 4096

# Measured on code: with more quotes there is little to gain, and the search itself takes the longest.
_MIN_BYTES_PER_QUOTE: Final = 32

_MEDIA_FIELD: Final = re.compile(rb'"(?:data|file_data|b64_json|image|audio|video)"[ \t\r\n]*:[ \t\r\n]*$')
_BASE64: Final = re.compile(rb'"[A-Za-z0-9+/_-]{64}')

_MAX_BACKSLASHES: Final = 64
_MAX_LOOKS: Final = 200_000
_QUOTE, _BACKSLASH = ord('"'), ord("\\")


def condense(body: bytes) -> bytes:
    """Return a JSON object with marked literals for long values; base64 media are marked as empty text."""
    values = _long_values(body)
    if not values:
        return body
    pieces: list[bytes] = []
    kept_from = 0
    for start, end in values:
        pieces += (body[kept_from:start], _replacement(body[start:end], body[max(0, start - 32) : start]))
        kept_from = end
    pieces.append(body[kept_from:])
    return b"".join(pieces)


def _replacement(value: bytes, before: bytes) -> bytes:
    """Return the literal for a value; `before` are the bytes that end with its field's name."""
    if value.startswith(b"["):
        return marked(IDS_MARK, count_byte(value, b",") + 1)
    if value.startswith(b'"data:') and b";base64," in value[:128]:
        return marked(TEXT_MARK, 0)
    if _MEDIA_FIELD.search(before) and _BASE64.match(value):
        return marked(TEXT_MARK, 0)
    return marked(TEXT_MARK, text_bytes(value))


def _long_values(body: bytes) -> list[tuple[int, int]]:
    """Start and end of each long string, quotes included, and each long array of numbers, in order."""
    edges = _string_edges(body)
    values = []
    for index in np.flatnonzero(np.diff(edges) >= _LONG_BYTES):
        start, end = int(edges[index]), int(edges[index + 1])
        if index % 2:
            values.append((start, end))
            continue
        first, last = body.find(b"[", start, end), body.rfind(b"]", start, end)
        if last - first >= _LONG_BYTES and _starts_with_number(body[first : first + 64]):
            values.append((first, last + 1))
    return values


def _string_edges(body: bytes) -> npt.NDArray[np.int64]:
    """Return 0, start and end of each string literal, and the body's end; only 0 if there are too many."""
    codes = np.frombuffer(body, np.uint8)
    is_quote = codes == _QUOTE
    if np.count_nonzero(is_quote) * _MIN_BYTES_PER_QUOTE > len(body):
        return np.zeros(1, np.int64)
    quotes = np.flatnonzero(is_quote)
    edges = np.concatenate(([0], quotes[~_is_escaped(codes, quotes)], [len(body)]))
    edges[2:-1:2] += 1
    return edges


def _is_escaped(codes: npt.NDArray[np.uint8], quotes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return whether an odd number of backslashes is before each quote."""
    is_escaped = np.zeros(len(quotes), np.bool_)
    run = np.flatnonzero(codes[quotes - 1] == _BACKSLASH)
    looks_left = 2 * len(quotes) + _MAX_LOOKS  # millions of long runs are hostile: then parsing falls back
    for distance in range(2, _MAX_BACKSLASHES):
        looks_left -= len(run)
        if not len(run) or looks_left < 0:
            break
        is_escaped[run] ^= True
        run = run[codes[quotes[run] - distance] == _BACKSLASH]
    return is_escaped


def _starts_with_number(array: bytes) -> bool:
    return array.lstrip(b"[ \r\n\t")[:1].isdigit()
