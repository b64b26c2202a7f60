"""The body of a request as a gateway sends it, part by part, until it can be read whole.

The gateway keeps nothing of it, so that the memory is ours: each body has a limit, and all that are held
together have one. Beyond that the largest of those that have not ended is given up, so that uploads which
never end keep no others out. Large bodies may take a part of it only: those that have ended are held while
their requests wait in the queue, and would leave no room for prompts of usual length.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from extproc.exchange.gateway_messages import Answers, Pick, SendBody
from extproc.exchange.held_bodies import COUNTED_BYTES, LARGE_BYTES
from extproc.exchange.messages import Continue, Phase, RouteTo

MAX_PART_BYTES = 62_000
"""Borrowed from the llm-d router: Google's load balancers take messages of at most 64 KiB."""

SHARES = ((0, 1.0), (COUNTED_BYTES, 0.75), (LARGE_BYTES, 0.5))
"""Guessed: the share of the room for all bodies that are larger than this many bytes."""


@dataclass(slots=True)
class CollectedBytes:
    """All bodies that are held: at most `max_bytes`, and of one body `max_body_bytes`.

    `held_above` has, for each of SHARES, the bytes of the bodies that are so large.
    """

    max_body_bytes: int
    max_bytes: int
    held_above: list[int] = field(default_factory=lambda: [0] * len(SHARES))
    unfinished: "dict[RequestBodyParts, None]" = field(default_factory=dict)

    @property
    def held_bytes(self) -> int:
        """The bytes of all bodies."""
        return self.held_above[0]

    def resized(self, before_bytes: int, size: int) -> None:
        """Note that a body has grown, or is another one, or is held no more."""
        for place, (least_bytes, _) in enumerate(SHARES):
            held = (size if size > least_bytes else 0) - (before_bytes if before_bytes > least_bytes else 0)
            self.held_above[place] += held

    def make_room(self) -> None:
        """Give up bodies that have not ended, the largest first, until the others have room."""
        for place, (least_bytes, share) in enumerate(SHARES):
            while self.held_above[place] > share * self.max_bytes and self.unfinished:
                largest = max(self.unfinished, key=lambda body: body.size)
                if largest.size <= least_bytes:
                    break
                largest.end()
                give_up = largest.give_up
                largest.take()
                give_up()


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

    def may_be_of(self, headers: Mapping[str, str]) -> bool:
        """Return whether it is as long as these headers say, if they do."""
        length = headers.get("content-length", "")
        return not (length.isascii() and length.isdigit()) or int(length[:18]) == self.size

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
        collected.resized(self.size - len(data), self.size)
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
        self._collected.resized(len(self._body), len(body))
        self._body, self.size = body, len(body)

    def take(self) -> bytes:
        """Return all of it, which is held no more; its size stays known."""
        body, self._body = self._body, b""
        self.give_up = _hold_nothing  # the exchange's own would tie the two together
        self._collected.resized(len(body), 0)
        self._collected.unfinished.pop(self, None)
        return bytes(body)


def _hold_nothing() -> None:
    """Give up a body that is held no more."""


def pick_of(route: RouteTo, body_bytes: int | None = None) -> Pick:
    """Return where a request goes, for a gateway."""
    return Pick(route.phase, (route.address, *route.others), body_bytes, route.traceparent, route.prefiller)


def whole_request(route: RouteTo, body: bytes, has_trailers: bool) -> Answers:
    """Return the answers that hand a request back: where it goes, its body in parts, and its trailers.

    There is one part at least, which may be empty, unless trailers end it: then the gateway has sent none.
    """
    cuts = range(0, len(body) if has_trailers else max(1, len(body)), MAX_PART_BYTES)
    length = len(body) if body and not has_trailers else None
    pick = pick_of(route, length)
    parts = [
        SendBody(body[start : start + MAX_PART_BYTES], start == cuts[-1] and not has_trailers)
        for start in cuts
    ]
    return (pick, *parts, *((Continue(Phase.REQUEST_TRAILERS),) if has_trailers else ()))
