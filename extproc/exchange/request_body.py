"""The body of a request as a gateway sends it, part by part, until it can be read whole.

The gateway keeps nothing of it, so that the memory is ours: each body has a limit, and all that are being
collected together have one.
"""

from dataclasses import dataclass

MAX_PART_BYTES = 62_000
"""Borrowed from the llm-d router: Google's load balancers take messages of at most 64 KiB."""


@dataclass(slots=True)
class CollectedBytes:
    """The bytes of all bodies that are held: at most `max_bytes`, and of one body `max_body_bytes`."""

    max_body_bytes: int
    max_bytes: int
    held_bytes: int = 0


class RequestBodyParts:
    """The parts of one body; `is_ended` once no more follow."""

    __slots__ = ("_body", "_collected", "is_ended", "size")

    def __init__(self, collected: CollectedBytes) -> None:
        self._collected = collected
        self._body: bytes | bytearray = b""
        self.size = 0
        self.is_ended = False

    @property
    def is_too_large(self) -> bool:
        """Whether it is longer than any body may be."""
        return self.size > self._collected.max_body_bytes

    @property
    def is_one_too_many(self) -> bool:
        """Whether there is no memory left for it beside the others."""
        return self._collected.held_bytes > self._collected.max_bytes

    def add(self, data: bytes) -> None:
        """Keep one more part."""
        if not self.size:
            self._body = data  # most bodies have one part
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        self.size += len(data)
        self._collected.held_bytes += len(data)

    def whole(self) -> bytes:
        """Return all of it, which stays held."""
        body = self._body = bytes(self._body)
        return body

    def replace(self, body: bytes) -> None:
        """Hold another body in its place."""
        self._collected.held_bytes += len(body) - len(self._body)
        self._body, self.size = body, len(body)

    def take(self) -> bytes:
        """Return all of it, which is held no more; its size stays known."""
        body, self._body = self._body, b""
        self._collected.held_bytes -= len(body)
        return bytes(body)


def cut(body: bytes) -> list[bytes]:
    """Return a body in parts that any gateway takes: at least one, which may be empty."""
    if len(body) <= MAX_PART_BYTES:
        return [body]
    return [body[start : start + MAX_PART_BYTES] for start in range(0, len(body), MAX_PART_BYTES)]
