"""JSON as servers take it beyond the standard, replaced by as many bytes of standard JSON.

Servers read bodies with Python's parser. That takes half a surrogate pair, which JavaScript writes where it
cuts a text, and the numbers NaN and Infinity. A backslash that is itself escaped is not recognized: then some
letters of a text are others.
"""

import re
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from extproc.request.literal import ESCAPE_BYTES

_UP_TO_BYTES: Final = 10 << 20
"""Measured: mending takes a quarter of a millisecond for a megabyte, and the worst that is mended 80 ms."""

_UP_TO_PLACES: Final = 16 * 1024

_BYTES_AT_ONCE: Final = 64 * 1024
"""Guessed: so much of the body stays in the processor's cache while it is looked at several times."""

_NUMBERS: Final = (
    (re.compile(rb"NaN(?<=[:\[, \t\r\n]NaN)(?=[,\]} \t\r\n])"), b"0.0"),
    (re.compile(rb"Infinity(?<=[:\[, \t\r\n-]Infinity)(?=[,\]} \t\r\n])"), b"99999999"),
)


_HIGH, _LOW = 1, 2


def _kinds() -> npt.NDArray[np.uint8]:
    kinds = np.zeros(256, np.uint8)
    kinds[list(b"89ABab")] = _HIGH
    kinds[list(b"CDEFcdef")] = _LOW
    return kinds


_KINDS: Final = _kinds()
"""Which half of a pair an escape is, by the digit after its D."""


def mendings(json: bytes) -> Iterator[bytes]:
    """Yield JSON without halves of pairs, then also without odd numbers; each if that replaces anything."""
    whole = with_whole_pairs(json)
    if whole is not json:
        yield whole
    if len(json) > _UP_TO_BYTES:
        return
    mended = whole
    for pattern, standard in _NUMBERS:
        mended = pattern.sub(standard, mended, _UP_TO_PLACES)
    if mended != whole:
        yield mended


def with_whole_pairs(json: bytes) -> bytes:
    """Replace each half of a surrogate pair by U+FFFD; JSON that is too large stays as it is."""
    if len(json) > _UP_TO_BYTES:
        return json
    codes = np.frombuffer(json, np.uint8)
    at = _surrogates(codes)
    if not len(at):
        return json
    kinds = _KINDS[codes[at + 3]]
    is_half = kinds != 0
    is_pair = (kinds[:-1] == _HIGH) & (kinds[1:] == _LOW) & (np.diff(at) == ESCAPE_BYTES)
    is_half[:-1] &= ~is_pair
    is_half[1:] &= ~is_pair
    halves = at[is_half][:_UP_TO_PLACES].tolist()
    if not halves:
        return json
    starts = [0, *(half + ESCAPE_BYTES for half in halves)]
    return rb"\ufffd".join(json[start:end] for start, end in zip(starts, [*halves, None], strict=True))


def _surrogates(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return where escapes begin that stand for U+D000 to U+DFFF."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(codes) - ESCAPE_BYTES, _BYTES_AT_ONCE):
        piece = codes[start : start + _BYTES_AT_ONCE + ESCAPE_BYTES - 1]
        is_one = piece[: 1 - ESCAPE_BYTES] == ord("\\")
        is_one &= piece[1 : 2 - ESCAPE_BYTES] == ord("u")
        if is_one.any():  # most pieces have no such escape at all
            is_one &= piece[2 : 3 - ESCAPE_BYTES] | 0x20 == ord("d")
            found.append(np.flatnonzero(is_one) + start)
    return np.concatenate(found)
