"""Which request is booked on which backend, and how often Envoy may try again elsewhere.

A booking is opened with the decision and closed with the exchange. When Envoy says that a request has been
sent to another backend after all, its booking moves there. Envoy does not say which request that was; the
requests on one backend are alike, so the newest is moved: every count is right, but for which of two ends
first.

The budget is that of Finagle and Linkerd: each request placed earns a share of a retry, each retry spends
one. While nothing is left, requests are placed without a second attempt, so that a dying fleet is not hit by
twice the load. (https://linkerd.io/2/features/retries-and-timeouts/)
"""

from collections import defaultdict

from extproc.fleet.fleet import Fleet
from extproc.request.request import Request
from extproc.request.token_learning import TokenLearning

RETRY_SHARE = 0.2
"""Borrowed from Linkerd: retries may add a fifth to the load."""

MAX_SAVED_RETRIES = 100.0
"""What may be spent at once: the default `max_active`, so that one backend may die under all it can hold."""


class Booking:
    """One request in flight, and the backend on which it counts."""

    __slots__ = ("request", "slot")

    def __init__(self, slot: int, request: Request) -> None:
        self.slot = slot
        self.request = request


class Bookings:
    """All open bookings; each is closed once, by the lease that holds it."""

    def __init__(self, fleet: Fleet, tokens: TokenLearning) -> None:
        self.retries = 0
        self.retries_withheld = 0
        self._saved_retries = MAX_SAVED_RETRIES
        self._fleet = fleet
        self._tokens = tokens
        self._open: defaultdict[int, dict[Booking, None]] = defaultdict(dict)

    def open(self, slot: int, request: Request, now_s: float, cached_tokens: float = 0.0) -> Booking:
        """A request is placed: it counts from this moment."""
        self._fleet.prefixes.sent(slot, request.prefix, request.input_tokens, cached_tokens)
        booking = Booking(slot, request)
        self._open[slot][booking] = None
        self._fleet.reserve(slot, now_s, request.input_tokens - cached_tokens)
        self._tokens.sent(slot, request)
        self._saved_retries = min(MAX_SAVED_RETRIES, self._saved_retries + RETRY_SHARE)
        return booking

    def close(self, booking: Booking, now_s: float) -> None:
        """It has left the backend on which it is booked by now."""
        del self._open[booking.slot][booking]
        self._fleet.release(booking.slot, now_s)
        self._tokens.finished(booking.slot, booking.request)

    def move(self, slot: int, other: int, now_s: float) -> None:
        """Envoy has sent a request of `slot` to `other`; if it has ended by now there is nothing to move."""
        if slot == other or not self._open[slot]:
            return
        booking, _ = self._open[slot].popitem()
        booking.slot = other
        self._open[other][booking] = None
        self._fleet.move(slot, other, now_s)
        self._fleet.prefixes.sent(other, booking.request.prefix, booking.request.input_tokens, 0.0)
        self._tokens.finished(slot, booking.request)
        self._tokens.sent(other, booking.request)

    def retried(self) -> None:
        """A second attempt was made."""
        self.retries += 1
        self._saved_retries = max(0.0, self._saved_retries - 1.0)

    def may_be_retried(self, slot: int) -> bool:
        """Whether a request that is placed on the backend now may be tried elsewhere; a probe always may."""
        is_affordable = self._saved_retries >= 1.0 or self._fleet.breakers.is_tripped(slot)
        self.retries_withheld += not is_affordable
        return is_affordable
