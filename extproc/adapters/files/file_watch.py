"""Follows one file: yields its content at the start, and again whenever it has changed and settled.

It asks for the file's status twice a second instead of using inotify, which sees nothing of bind-mounted
files and network file systems, and needs a directory that exists. Reading happens off the event loop.
"""

import asyncio
import logging
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

from extproc.adapters.condition_log import ConditionLog
from extproc.config.regular_file import open_regular

logger = logging.getLogger(__name__)

FileSignature = tuple[int, int, int]

INTERVAL_S = 0.5
"""A change is acted on when it is one interval old, so after at most 1 s and the time to read it."""

MOST_CHANGES = 10
"""Guessed: a file that is another one at this many looks in a row, for 5 s, is read as it is."""


def file_signature(path: Path) -> FileSignature | None:
    """Return what differs after every change of the file, of its permissions too; None for no regular file.

    The time is that of the last change of the inode (ctime), which no writer can set back.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_ino, status.st_size, status.st_ctime_ns


async def watch_file(path: Path, max_bytes: int) -> AsyncIterator[bytes | None]:
    """Yield the file's content, of a larger one the first `max_bytes`; None where it cannot be read."""
    settling = ConditionLog(logger, "file_keeps_changing", "file_settled")
    yielded: FileSignature | str | None = "never"
    seen: FileSignature | str | None = "never"
    changes = 0
    while True:
        signature = await asyncio.to_thread(file_signature, path)
        changes = 0 if signature == seen else changes + 1
        if changes == MOST_CHANGES:
            settling.failed("read without waiting for its end", time.monotonic(), path=str(path))
            changes = 0
        elif signature == seen:
            settling.holds(path=str(path))
        if signature != yielded and (not changes or yielded == "never"):
            yielded = signature
            yield await asyncio.to_thread(_read, path, max_bytes)
        seen = signature
        await asyncio.sleep(INTERVAL_S)


def _read(path: Path, max_bytes: int) -> bytes | None:
    try:
        with open_regular(path) as file:  # it may have become a FIFO by now
            return file.read(max_bytes)
    except OSError:
        return None
