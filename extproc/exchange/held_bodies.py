"""The bodies that Envoy holds for requests, in bytes, and how many of them there may be.

Envoy keeps a request's body from its first byte until the response has ended (measured), and refuses all
requests where its heap is full. So large bodies are counted from the headers on, which come before them, and
are refused where there are too many: a client that sends many halves, or many whole ones, harms large bodies
alone.
"""

from collections.abc import Callable, Mapping

import msgspec

from extproc.exchange.messages import Reject
from extproc.request.api import Api

COUNTED_BYTES = 1 << 16
"""Guessed: smaller bodies fill Envoy's memory by thousands of connections only."""

LARGE_BYTES = 1 << 20
"""Guessed: larger ones may take two thirds, so that they leave room for prompts of usual length."""

UNTOLD_BYTES = 32 << 20
"""The largest body that `envoy.yaml` lets in; counted for one of unknown length until it is here."""


class HeldBodies(msgspec.Struct):
    """All bodies of one sidecar that are held; `refuse` answers a request whose body has no room.

    A length counts as untold only once some request has told one: an older `envoy.yaml` does not forward it.
    """

    max_bytes: int
    refuse: Callable[[Api], Reject]
    held_bytes: int = 0
    is_length_forwarded: bool = False

    def announce(self, headers: Mapping[str, str]) -> int | None:
        """Take the room that a body will need, and return it in bytes; None where there is not so much."""
        length = headers.get("content-length")
        if length is not None and length.isdecimal() and len(length) < 16:
            self.is_length_forwarded = True
            size = int(length)
        else:
            size = UNTOLD_BYTES if self.is_length_forwarded else 0
        if size < COUNTED_BYTES:
            return 0
        most_bytes = self.max_bytes if size <= LARGE_BYTES else self.max_bytes * 2 // 3
        if self.held_bytes + size > most_bytes:
            return None
        self.held_bytes += size
        return size

    def arrived(self, announced_bytes: int, body_bytes: int) -> int:
        """Take the room of the body that has come instead of what was announced, and return it."""
        size = body_bytes if body_bytes >= COUNTED_BYTES else 0
        self.held_bytes += size - announced_bytes
        return size
