"""Protobuf's wire format, as far as it is written and read by hand, where that is on every request's path.

https://protobuf.dev/programming-guides/encoding/
"""

from typing import Final

_MORE: Final = 0x80
_LONGEST: Final = 10


def varint(number: int) -> bytes:
    """Encode a number that is not negative."""
    if number < _MORE:
        return _SHORT[number]
    found = bytearray()
    while number >= _MORE:
        found.append(number & 0x7F | _MORE)
        number >>= 7
    found.append(number)
    return bytes(found)


_SHORT: Final = tuple(bytes([number]) for number in range(_MORE))


def length_delimited(tag: bytes, content: bytes) -> bytes:
    """Encode a field of bytes, of a text or of a message."""
    return tag + varint(len(content)) + content


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at that place and where it ends: beyond the data where it is cut off or too long."""
    if at + 1 < len(data):  # the usual ones, of one byte or two
        low, high = data[at], data[at + 1]
        if low < _MORE:
            return low, at + 1
        if high < _MORE:
            return low & 0x7F | high << 7, at + 2
    number = 0
    for place in range(at, min(at + _LONGEST, len(data))):
        byte = data[place]
        number |= (byte & 0x7F) << 7 * (place - at)
        if byte < _MORE:
            return number, place + 1
    return 0, len(data) + 1
