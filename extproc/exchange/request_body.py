"""The body of a request as a gateway sends it, part by part, until it can be read whole.

The gateway keeps nothing of it, so that the memory is ours: each body has a limit, and all that are held
together have one. Beyond that the largest of those that have not ended is given up, so that uploads which
never end keep no others out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from extproc.exchange.gateway_messages import Answers, Pick, SendBody
from extproc.exchange.messages import Continue, Phase, RouteTo

MAX_PART_BYTES = 62_000
"""Borrowed from the llm-d router: Google's load balancers take messages of at most 64 KiB."""


@dataclass(slots=True)
class CollectedBytes:
    """All bodies that are held: at most `max_bytes`, and of one body `max_body_bytes`."""

    max_body_bytes: int
    max_bytes: int
    held_bytes: int = 0
    unfinished: "dict[RequestBodyParts, None]" = field(default_factory=dict)

    def make_room(self) -> None:
        """Give up bodies that have not ended, the largest first, until the others have room."""
        while self.held_bytes > self.max_bytes and self.unfinished:
            largest = max(self.unfinished, key=lambda body: body.size)
            largest.end()
            largest.take()
            largest.give_up()


class RequestBodyParts:
    """The parts of one body; `is_ended` once no more follow. `give_up` follows its end for want of room."""

    __slots__ = ("_body", "_collected", "give_up", "is_ended", "size")

    def __init__(self, collected: CollectedBytes, give_up: Callable[[], None]) -> None:
        self._collected = collected
        self._body: bytes | bytearray = b""
        self.give_up = give_up
        self.size = 0
        self.is_ended = False

    @property
    def is_too_large(self) -> bool:
        """Whether it is longer than any body may be."""
        return self.size > self._collected.max_body_bytes

    def add(self, data: bytes) -> None:
        """Keep one more part; where there is no room, this or a larger body is given up."""
        if not self.size:
            self._body = data  # most bodies have one part
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        self.size += len(data)
        collected = self._collected
        collected.held_bytes += len(data)
        collected.unfinished[self] = None
        collected.make_room()

    def end(self) -> None:
        """Note that no more parts follow."""
        self.is_ended = True
        self._collected.unfinished.pop(self, None)

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
        self._collected.unfinished.pop(self, None)
        return bytes(body)


def pick_of(route: RouteTo, body_bytes: int | None = None) -> Pick:
    """Return where a request goes, for a gateway."""
    return Pick(route.phase, (route.address, *route.others), body_bytes, route.traceparent, route.prefiller)


def whole_request(route: RouteTo, body: bytes, has_trailers: bool) -> Answers:
    """Return the answers that hand a request back: where it goes, its body in parts, and its trailers.

    There is one part at least, which may be empty.
    """
    cuts = range(0, max(1, len(body)), MAX_PART_BYTES)
    length = len(body) if body and not has_trailers else None
    pick = pick_of(route, length)
    parts = [
        SendBody(body[start : start + MAX_PART_BYTES], start == cuts[-1] and not has_trailers)
        for start in cuts
    ]
    return (pick, *parts, *((Continue(Phase.REQUEST_TRAILERS),) if has_trailers else ()))
