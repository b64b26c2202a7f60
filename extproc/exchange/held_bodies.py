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

TOLD_REQUESTS = 256
"""Guessed: over this many requests it is learned whether lengths are told."""


class HeldBodies(msgspec.Struct):
    """All bodies of one sidecar that are held; `refuse` answers a request whose body has no room.

    A body of unknown length takes the room of the largest only where most requests tell theirs: some gateways
    leave all lengths out, and an older `envoy.yaml` does not forward them.
    """

    max_bytes: int
    refuse: Callable[[Api], Reject]
    held_bytes: int = 0
    told_share: float = 0.0

    def announce(self, headers: Mapping[str, str]) -> int | None:
        """Take the room that a body will need, and return it in bytes; None where there is not so much."""
        length = headers.get("content-length", "")
        is_told = length.isdecimal() and len(length) < 16
        self.told_share += (is_told - self.told_share) / TOLD_REQUESTS
        untold_bytes = UNTOLD_BYTES if self.told_share > 0.5 else 0
        size = int(length) if is_told else untold_bytes
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
