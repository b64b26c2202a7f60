"""Samples as blocks of packed rows beside the store, where sidecars write them and readers take them in.

`samples.db.rows` is appended to, a block with each write, under a lock (flock) that is held for as long as a
write takes. A reader sets the file aside under the same lock, as `samples.db.rows.<time>`: then it changes no
more. Several sidecars may share it. A block has its size and a checksum, so that one which was cut off by the
end of a process, or of the disk, costs itself alone. Nothing is synced to the disk: what the kernel has
outlives the process, not the machine.
"""

import fcntl
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec.structs import astuple

from extproc.outcomes.facts import Sample

_MAGIC = b"\x89XPR"
_HEAD = struct.Struct("<4sII")
"""Magic, size and CRC-32 of the payload."""

_MAX_BLOCK_BYTES = 8 << 20
_ASIDE = 8
"""Files that no reader has come for; the oldest goes when there is one more."""
_TRIES = 3

_UNPACKABLE = (OverflowError, ValueError, TypeError)
"""Errors for a value: an integer beyond 64 bits, text that is no Unicode."""

_encode = msgspec.msgpack.Encoder().encode


class _Rows(msgspec.Struct, array_like=True):
    """The payload: the names of the fields once, and the limit that the writer has for the whole store."""

    max_rows: Annotated[int, msgspec.Meta(ge=1)]
    names: list[str]
    rows: list[list[Any]]


_decode = msgspec.msgpack.Decoder(_Rows).decode


def packed(samples: Sequence[Sample], max_rows: int) -> tuple[bytes, int]:
    """Return a block of the samples, and how many are left out: those with a value that no format has."""
    rows = [astuple(sample) for sample in samples]
    try:
        payload = _encode((max_rows, Sample.__struct_fields__, rows))
    except _UNPACKABLE:
        good = [sample for sample in samples if _is_storable(sample)]
        return packed(good, max_rows)[0], len(samples) - len(good)
    return _HEAD.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload, 0


def _is_storable(sample: Sample) -> bool:
    try:
        _encode(astuple(sample))
    except _UNPACKABLE:
        return False
    return True


def unpacked(data: bytes) -> Iterator[tuple[int, list[Sample]]]:
    """Yield limit and samples of each whole block; fields that are not known any more are left out."""
    at = data.find(_MAGIC)
    while at >= 0:
        payload = _payload(data, at)
        if payload is not None:
            yield from _read(payload)
        at = data.find(_MAGIC, at + 1 if payload is None else at + _HEAD.size + len(payload))


def _payload(data: bytes, at: int) -> bytes | None:
    begin = at + _HEAD.size
    if begin > len(data):
        return None
    _, size, checksum = _HEAD.unpack_from(data, at)
    if size > _MAX_BLOCK_BYTES or begin + size > len(data):
        return None
    payload = data[begin : begin + size]
    return payload if zlib.crc32(payload) == checksum else None


def _read(payload: bytes) -> Iterator[tuple[int, list[Sample]]]:
    try:
        block = _decode(payload)
    except (msgspec.MsgspecError, RecursionError):
        return
    samples = []
    for row in block.rows:
        # A row that is left out is of a version with other bounds.
        with suppress(msgspec.MsgspecError, ValueError):
            samples.append(msgspec.convert(dict(zip(block.names, row, strict=True)), Sample))
    yield block.max_rows, samples


def files_aside(store: Path) -> list[Path]:
    """Return what was set aside, the oldest first."""
    store = store.resolve()
    return sorted(store.parent.glob(f"{escape(store.name)}.rows.*"))


class RowsFile:
    """The file that is appended to.

    Methods raise OSError, of which BlockingIOError says that the file is locked at this moment.
    """

    def __init__(self, store: Path, max_bytes: int = 0) -> None:
        self._store = store = store.resolve()
        self._path = store.with_name(f"{store.name}.rows")
        self._max_bytes = max_bytes
        self._file = -1

    def append(self, block: bytes) -> None:
        """Append a block whole, or nothing of it; a file that is large enough is set aside."""
        self._lock()
        try:
            size = os.fstat(self._file).st_size
            written = os.write(self._file, block)
            if written < len(block):
                os.ftruncate(self._file, size)
                raise OSError(f"{self._path}: {written} of {len(block)} bytes could be written")
            if size + written >= self._max_bytes:
                self._rename()
        finally:
            self._unlock()

    def set_aside(self) -> None:
        """Begin another file, if there is something in this one."""
        if not self._path.exists():
            return
        self._lock()
        try:
            if os.fstat(self._file).st_size:
                self._rename()
        finally:
            self._unlock()

    def close(self) -> None:
        """Close the file; it is opened again where it is used again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _lock(self) -> None:
        """Lock the file that has the name at this moment."""
        for _ in range(_TRIES):
            if self._file < 0:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                self._file = os.open(self._path, flags, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_in_place():
                return
            self.close()
        raise BlockingIOError(f"{self._path} is replaced again and again")

    def _unlock(self) -> None:
        if self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self._path.lstat())
        except FileNotFoundError:
            return False

    def _rename(self) -> None:
        self._path.rename(f"{self._path}.{time.time_ns():020}")
        for oldest in files_aside(self._store)[:-_ASIDE]:
            oldest.unlink(missing_ok=True)
