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

ASSUMED_BYTES = 32 << 20
"""The largest body that `envoy.yaml` lets in; counted for one of unknown length until it is here."""

WINDOW_REQUESTS = 256
"""Guessed: over this many requests the share of known lengths is averaged."""


class HeldBodies(msgspec.Struct):
    """All bodies of one sidecar that are held; `refuse` answers a request whose body has no room.

    A body of unknown length takes the room of the largest only where most requests have a length: some
    gateways leave all lengths out, and an older `envoy.yaml` does not forward them.
    """

    max_bytes: int
    refuse: Callable[[Api], Reject]
    held_bytes: int = 0
    known_share: float = 0.0

    def announce(self, headers: Mapping[str, str]) -> int | None:
        """Take the room that a body will need, and return it in bytes; None where there is not so much."""
        length = headers.get("content-length", "")
        is_known = length.isdecimal() and len(length) < 16
        self.known_share += (is_known - self.known_share) / WINDOW_REQUESTS
        assumed_bytes = ASSUMED_BYTES if self.known_share > 0.5 else 0
        size = int(length) if is_known else assumed_bytes
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
