"""The keys that servers want for their metrics and their list of models, from files that may be replaced.

A key is sent to the server that it belongs to and appears nowhere else: in no log, state or metric.
"""

import asyncio
import logging
from collections.abc import Callable, Set
from pathlib import Path

from extproc.adapters.files.file_watch import watch_file
from extproc.config.environment import IS_API_KEY

logger = logging.getLogger(__name__)

MAX_KEY_FILE_BYTES = 8192
"""Guessed: twice the longest key, for white space around it."""


class ApiKeys:
    """All keys by the path of their file; `usual` is that of servers without a file of their own.

    `handle_change` follows every file that has another key, the first one included.
    """

    def __init__(self, usual: str | None, handle_change: Callable[[Path], None]) -> None:
        self._usual = key_header(usual)
        self._handle_change = handle_change
        self._headers: dict[Path, bytes] = {}
        self._watches: dict[Path, asyncio.Task[None]] = {}

    def follow(self, paths: Set[Path]) -> None:
        """Watch these files, and no others any more."""
        for gone in self._watches.keys() - paths:
            self._watches.pop(gone).cancel()
            self._headers.pop(gone, None)
        for path in paths - self._watches.keys():
            self._watches[path] = asyncio.create_task(self._watch(path))

    def header(self, path: Path | None) -> bytes | None:
        """Return the line of the request, empty without a key; None while the file has not been read yet."""
        return self._usual if path is None else self._headers.get(path)

    async def stop(self) -> None:
        """End all watches."""
        watches = list(self._watches.values())
        self.follow(frozenset())
        await asyncio.gather(*watches, return_exceptions=True)

    async def _watch(self, path: Path) -> None:
        async for content in watch_file(path, MAX_KEY_FILE_BYTES):
            key = read_key(content)
            if key is None:
                logger.warning("api_key_file_refused path=%s error=it cannot be read, or holds no key", path)
            header = key_header(key)
            if header != self._headers.get(path):
                self._headers[path] = header
                self._handle_change(path)


def read_key(content: bytes | None) -> str | None:
    """Return the key in a file's content; None where it holds none."""
    try:
        key = (content or b"").decode("ascii").strip()
    except UnicodeDecodeError:
        return None
    return key if IS_API_KEY.fullmatch(key) else None


def key_header(key: str | None) -> bytes:
    """Return the line of a request that carries the key, empty without one."""
    return b"" if key is None else f"authorization: Bearer {key}\r\n".encode()
