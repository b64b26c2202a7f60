"""Header blocks: decoded (RFC 7541), and held against the rules for requests (RFC 9113 §8.2, §8.3).

The `hpack` library takes some 100 us for the ten fields of a gRPC request, but a client that keeps no
dynamic table sends the same block again and again: blocks are cached by their bytes. A client may use
a table until it has acknowledged our HEADER_TABLE_SIZE of 0; until then nothing is cached.
"""

import re
from typing import Final

import hpack
from msgspec import Struct

from extproc.h2.events import ErrorCode, FatalError, Fields

_NAME: Final = re.compile(rb"[!-9;-@\[-~]+")
_ILLEGAL_IN_VALUE: Final = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_OF_A_CONNECTION: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_REQUIRED: Final = frozenset((b":method", b":scheme", b":path"))
_PSEUDO: Final = _REQUIRED | {b":authority"}

_CACHED_BLOCKS: Final = 64
_MAX_CACHED_BYTES: Final = 1024


class Section(Struct, frozen=True):
    """A decoded header block, and what it may be used as."""

    fields: Fields
    is_request: bool
    is_trailers: bool
    content_bytes: int | None


class PartialBlock(Struct):
    """A header block of which CONTINUATION frames are still to come (§6.10)."""

    stream_id: int
    flags: int
    block: bytes
    continuations: int = 0


class BlockDecoder:
    """The HPACK state of one connection's receiving side."""

    __slots__ = ("_cache", "_hpack")

    def __init__(self, max_header_list_bytes: int) -> None:
        self._hpack = hpack.Decoder(max_header_list_size=max_header_list_bytes)
        self._cache: dict[bytes, Section] = {}

    def forbid_table(self) -> None:
        """Require that the next block gives up the table: our SETTINGS are acknowledged (§4.3.1)."""
        self._hpack.max_allowed_table_size = 0

    def decode(self, block: bytes) -> Section:
        """Decode a block; raises FatalError, since an unread one loses the table of all streams (§4.3)."""
        if (known := self._cache.get(block)) is not None:
            return known
        try:
            fields = tuple((name, value) for name, value in self._hpack.decode(block, raw=True))
        except hpack.OversizedHeaderListError as error:
            raise FatalError(ErrorCode.ENHANCE_YOUR_CALM, "header list too large") from error
        except hpack.HPACKError as error:
            raise FatalError(ErrorCode.COMPRESSION_ERROR, "broken header block") from error
        section = _section(fields)
        if not self._hpack.max_allowed_table_size and len(block) <= _MAX_CACHED_BYTES:
            if len(self._cache) == _CACHED_BLOCKS:
                del self._cache[next(iter(self._cache))]
            self._cache[block] = section
        return section


def _section(fields: Fields) -> Section:
    lengths = {value for name, value in fields if name == b"content-length"}
    has_sound_length = not lengths or (len(lengths) == 1 and all(map(_LENGTH.fullmatch, lengths)))
    return Section(
        fields=fields,
        is_request=has_sound_length and _is_request(fields),
        is_trailers=all(_is_regular(name, value) for name, value in fields),
        content_bytes=int(lengths.pop()) if lengths and has_sound_length else None,
    )


def _is_request(fields: Fields) -> bool:
    """Check §8.3.1, without CONNECT, which gRPC does not use and which has no path."""
    count = 0
    while count < len(fields) and fields[count][0].startswith(b":"):
        count += 1
    pseudo = dict(fields[:count])
    return (
        len(pseudo) == count  # none twice
        and _REQUIRED <= pseudo.keys() <= _PSEUDO
        and pseudo[b":path"] != b""
        and not any(map(_ILLEGAL_IN_VALUE.search, pseudo.values()))
        and all(_is_regular(name, value) for name, value in fields[count:])
    )


def _is_regular(name: bytes, value: bytes) -> bool:
    """Check §8.2.1 (lower case, no control characters or colon) and §8.2.2 (nothing about a connection)."""
    return (
        _NAME.fullmatch(name) is not None
        and _ILLEGAL_IN_VALUE.search(value) is None
        and name not in _OF_A_CONNECTION
        and (name != b"te" or value == b"trailers")
    )
