"""A file that is replaced whole: a reader or a watcher sees the old content or the new one.

Envoy's cluster file, its bootstrap and the model file are published this way. The theory is POSIX rename(2):
within one file system it is atomic, and a directory watch sees one event.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from extproc.errors import ExtprocError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by a file that holds `data` and that every user may read (0644)."""
    with replacement(path) as temporary:
        temporary.write_bytes(data)


def write_or_raise(path: Path, data: bytes, error: type[ExtprocError]) -> None:
    """Write as `write_atomically` does; raises `error`, with the path, where the file cannot be written."""
    try:
        write_atomically(path, data)
    except OSError as fault:
        raise error(f"{path}: {fault.strerror}") from fault


def write_json(path: Path, content: object, error: type[ExtprocError], indent: int = 2) -> None:
    """Write `content` as indented JSON that ends in a newline; raises as `write_or_raise` does."""
    write_or_raise(path, msgspec.json.format(msgspec.json.encode(content), indent=indent) + b"\n", error)


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """Yield a temporary file for the block to write, which then takes the place of `path`, with mode 0644.

    The content is on disk before the name changes. On any failure the old file stays, and nothing else.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # also on cancellation or an interrupt: no temporary file may stay behind
        temporary.unlink(missing_ok=True)
        raise
