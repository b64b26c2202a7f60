"""Which request is booked on which backend, and how often Envoy may try again elsewhere.

A booking is opened with the decision and ends with the exchange. When Envoy says that a request has been sent
to another backend after all, its booking moves there. Envoy does not say which request that was; the requests
on one backend are alike, so the newest is moved: counts stay correct, only which of the two requests ends
first may be swapped.

The budget is that of Finagle and Linkerd: each request placed earns a share of a retry, each retry spends
one. While nothing is left, requests are placed without a second attempt, so that a dying fleet is not hit by
twice the load. (https://linkerd.io/2/features/retries-and-timeouts/)
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from extproc.exchange.placement import Lease
from extproc.fleet.backend import Backend, BookedRequest
from extproc.fleet.prefix_cache import SentPrompt
from extproc.fleet.sent_prefixes import SentPrefixes
from extproc.policy.prefill import PrefillChoice
from extproc.request.api import OTHER
from extproc.request.request import Request
from extproc.routing.empty_claims import EmptyClaims
from extproc.routing.prefills import Prefill
from extproc.routing.replicas import Replicas
from extproc.routing.tenant_shares import TenantShares

RETRY_SHARE = 0.2
"""Borrowed from Linkerd: retries may add a fifth to the load."""

MAX_AWAITED = 4096
"""Guessed: requests that have ended and whose outcome is still to come; it takes 50 ms, or never comes."""

MAX_SAVED_RETRIES = 100.0
"""The most that may be spent at once: the default `max_active`, so that one full backend may die."""

Freed = Callable[[Backend, float], None]
"""Follows every place that is given back."""


@dataclass(slots=True, eq=False)
class Booking(Lease):
    """One request in flight, and the backend on which it counts; `number` comes back with its outcome.

    One that has waited for a place for its adapter `is_no_measure` of how fast the backend is. `prefill` is
    None where the backend computes the prompt itself. `in_flight_s` is known once it has ended.
    """

    _bookings: "Bookings"
    number: int
    backend: Backend
    request: Request
    prompt: SentPrompt
    prefill: Prefill | None
    _placed_s: float
    is_no_measure: bool = False
    in_flight_s: float = 0.0

    def answered(self, now_s: float) -> None:
        """Note the first token: the server that has computed the prompt is done with it."""
        if self.prefill is not None:
            self.prefill.computed(now_s)

    def _release(self, now_s: float) -> None:
        self.in_flight_s = now_s - self._placed_s
        self._bookings.close(self, now_s)


@dataclass(slots=True, eq=False)
class Bookings:
    """Opens, moves and closes bookings; each backend holds its own open ones.

    Numbers begin after the given one: where that is random, no outcome is taken for that of another process.
    With `replicas`, each prompt is reported to other sidecars.
    """

    _prefixes: SentPrefixes
    _freed: Freed
    _number: int = 0
    _replicas: Replicas | None = None
    shares: TenantShares = field(default_factory=TenantShares)
    _claims: EmptyClaims = field(default_factory=EmptyClaims)
    retries: int = 0
    retries_withheld: int = 0
    _awaited: dict[int, Booking] = field(default_factory=dict)
    _ended: deque[int] = field(default_factory=deque)
    _saved_retries: float = MAX_SAVED_RETRIES

    def open(
        self,
        backend: Backend,
        request: Request,
        now_s: float,
        cached_tokens: float = 0.0,
        prefill_by: PrefillChoice | None = None,
    ) -> Booking:
        """Book a request that is placed, and its prompt where another server prefills it, from now on."""
        prompt = self._prefixes.sent(backend, request.prefix, request.input_tokens, cached_tokens)
        believed_tokens = self._claims.believed_tokens(request)
        self._number += 1
        prefill = None
        if prefill_by is not None:
            prefill = Prefill(
                prefill_by, request, believed_tokens, self._prefixes, now_s, -self._number, self._replicas
            )
        booking = Booking(self, self._number, backend, request, prompt, prefill, now_s)
        self._awaited[self._number] = booking
        backend.open[booking] = None
        if backend.adapters is not None:
            backend.adapters.begin(booking, request.model)
        if request.tenant:
            self.shares.begin(request.tenant)
        if request.has_body:
            backend.reserve(now_s)
            new_tokens = believed_tokens - cached_tokens if prefill is None else 0.0
            self._expect_prompt(booking, new_tokens if new_tokens > 0.0 else 0.0, now_s)
            _count_text(backend, request, prefill)
        else:
            backend.count_bodyless(1, now_s)
        saved = self._saved_retries + RETRY_SHARE
        self._saved_retries = saved if saved < MAX_SAVED_RETRIES else MAX_SAVED_RETRIES
        return booking

    def close(self, booking: Booking, now_s: float) -> None:
        """Take a request off the backend on which it is booked by now; called by the end of the lease."""
        backend = booking.backend
        del backend.open[booking]
        if booking.prefill is not None:
            booking.prefill.end(now_s)
        if backend.adapters is not None:
            booking.is_no_measure |= backend.adapters.end(booking)
        if booking.request.tenant:
            self.shares.end(booking.request.tenant)
        if booking.request.has_body:
            self._give_back_prompt(booking)
            backend.release(now_s)
            backend.token_window.finished(booking.request.input_size)
        else:
            backend.count_bodyless(-1, now_s)
        self._ended.append(booking.number)
        if len(self._ended) > MAX_AWAITED:
            self._awaited.pop(self._ended.popleft(), None)
        self._freed(backend, now_s)

    def settle(self, number: int, *, is_computed: bool, is_refused: bool = False) -> Booking | None:
        """Return the booking whose outcome has come, None for one of another process, or of long ago.

        A prompt that was not computed, because it was refused or given up, is in no cache.
        """
        booking = self._awaited.pop(number, None)
        if booking is not None:
            self._claims.ended(
                booking.request,
                is_computed=is_computed,
                is_refused=is_refused,
                in_flight_s=booking.in_flight_s,
            )
        if booking is not None and not is_computed:
            self._prefixes.take_back(booking.backend, booking.prompt)
            if booking.prefill is not None:
                self._prefixes.take_back(booking.prefill.backend, booking.prefill.prompt)
        return booking

    def move(self, backend: Backend, other: Backend, now_s: float) -> None:
        """Book a request of `backend` on `other`, where Envoy has sent it, unless it has ended by now."""
        if backend is not other and backend.open:
            self.move_one(next(reversed(backend.open)), other, now_s)

    def move_one(self, booking: BookedRequest, other: Backend, now_s: float) -> None:
        """Book a request on another backend, unless it has ended by now."""
        backend = booking.backend
        if booking not in backend.open:
            return
        del backend.open[booking]
        if booking.request.has_body:
            self._give_back_prompt(booking)
        booking.backend = other
        other.open[booking] = None
        if backend.adapters is not None:
            backend.adapters.end(booking)
        if other.adapters is not None:
            other.adapters.begin(booking, booking.request.model)
        if not booking.request.has_body:
            backend.bodyless -= 1
            other.bodyless += 1
            return
        backend.move_to(other, now_s)
        tokens = 0.0 if booking.prefill else self._claims.believed_tokens(booking.request)
        self._expect_prompt(booking, tokens, now_s)
        booking.prompt = self._prefixes.sent(other, booking.request.prefix, booking.request.input_tokens, 0.0)
        backend.token_window.finished(booking.request.input_size)
        _count_text(other, booking.request, booking.prefill)

    def _expect_prompt(self, booking: BookedRequest, tokens: float, now_s: float) -> None:
        """Count a prompt as work of its backend, here and with other sidecars."""
        booking.backend.expect_prompt(booking, tokens, now_s)
        if self._replicas is not None:
            self._replicas.sent(booking.number, booking.backend, tokens)

    def _give_back_prompt(self, booking: BookedRequest) -> None:
        booking.backend.give_back_prompt(booking)
        if self._replicas is not None:
            self._replicas.ended(booking.number)

    def retried(self) -> None:
        """Count a second attempt."""
        self.retries += 1
        self._saved_retries = max(0.0, self._saved_retries - 1.0)

    def may_be_retried(self, backend: Backend) -> bool:
        """Return whether a request placed here now may be tried elsewhere; a probe always may."""
        is_affordable = self._saved_retries >= 1.0 or backend.breaker.is_tripped
        self.retries_withheld += not is_affordable
        return is_affordable


def _count_text(backend: Backend, request: Request, prefill: object) -> None:
    """Note text that becomes tokens there; for unknown APIs nothing tells which part of a body does.

    Whether a server counts the tokens of a prompt that another one has computed is its own choice.
    """
    model = None if request.api is OTHER or prefill is not None else request.model
    backend.token_window.sent(model, request.input_size)
