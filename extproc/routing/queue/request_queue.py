"""The waiting room: requests that no backend can take now are held here, one line for each model.

It stands before the router as the `Placer` of every exchange. Who finds nobody waiting for the same model is
placed at once, as without a queue. Everybody else waits, and is let in when

- a slot is given back (`Router.freed`): in the same step, so that none is idle while somebody waits for it;
- `advance` finds room for another reason: a scrape, a probe that is due, another prediction, a new backend.
  It is called several times a second, which is more often than any of these changes.

An attempt is the whole decision, with everything that is known at that moment, and reserves the slot in the
same step. Only the first of a line is ever tried: a short request behind a long one, of which the prediction
is still too late, waits with it. To let it pass would fill, again and again, the place that the long one
waits for.

A backend is filled up to its limit here, without hysteresis (`config.guard_stage` sets the limit so).
Hysteresis keeps clients from being taken in and refused in turns; but here the next one takes the slot, and a
batch that has to shrink to the resume load before it is filled again is capacity lost.
"""

from collections import OrderedDict
from functools import partial
from itertools import islice

from extproc.exchange.messages import Continue, Hold, Phase, RouteTo
from extproc.exchange.placement import Lease, Placement
from extproc.fleet.registry import Registry
from extproc.policy.decision import Decision, Layer, Reason
from extproc.request.request import Request
from extproc.routing.queue.model_queue import ModelQueue
from extproc.routing.queue.queue_rules import QueueRules
from extproc.routing.queue.wait_counts import Ending, WaitCounts
from extproc.routing.queue.waiter import Waiter
from extproc.routing.router import Router

HOLD_MARGIN_S = 5.0
"""Guessed: Envoy is asked for so much more patience than a request may wait. Who is not answered within it,
because the sidecar stands still, goes to Envoy's own pool."""

RETRY_S = 0.05
"""Guessed: half a scrape's interval, and what scrapes say is late by several of them."""

MAX_LINES = 16
"""Guessed: of how many lines the first is tried in one go, each of which may cost a question to the model."""


class RequestQueue:
    """All who wait, by model, and by age: everybody may wait equally long, so the oldest is due first."""

    def __init__(self, router: Router, registry: Registry, rules: QueueRules) -> None:
        self.counts = WaitCounts()
        self._router = router
        self._registry = registry
        self._rules = rules
        self._lines: OrderedDict[str | None, ModelQueue] = OrderedDict()
        self._by_age: OrderedDict[Waiter, ModelQueue] = OrderedDict()
        self._arrivals = 0
        self._is_closed = False
        router.freed = self._freed

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._by_age)

    def depths(self) -> dict[str, int]:
        """How many wait, by model; that is empty for requests which name none."""
        return {model or "": len(line) for model, line in self._lines.items()}

    def oldest_s(self, now_s: float) -> float:
        """How long the oldest has been waiting."""
        return now_s - self._oldest().since_s if self._by_age else 0.0

    def due_s(self, now_s: float) -> float:
        """When `advance` is to be called again."""
        again_s = now_s + RETRY_S
        return min(again_s, self._oldest().deadline_s) if self._by_age else again_s

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        """Place a request now, or hold it, or refuse it."""
        if not (request.has_body and request.model in self._lines):
            tried = self._router.attempt(request, phase, now_s)
            if isinstance(tried, Placement):
                return tried
            if not self._may_wait(request, tried):
                return self._router.refuse(request, tried, now_s)
        return self._router.pass_through(phase) if self._is_closed else self._hold(request, phase, now_s)

    def advance(self, now_s: float) -> None:
        """Refuse those whose time is over, and let in whoever finds room by now."""
        self._expire(now_s)
        for model in tuple(islice(self._lines, MAX_LINES)):
            self._lines.move_to_end(model)  # next time it is the turn of others
            while model in self._lines and self._try_first(self._lines[model], now_s) is not None:
                pass

    def close(self, now_s: float) -> None:
        """The sidecar is about to end: those who wait go where Envoy sends everybody once it has ended."""
        self._is_closed = True
        for waiter in tuple(self._by_age):
            self._leave(waiter)
            self._settle(waiter, self._router.pass_through(waiter.phase), Ending.PASSED_THROUGH, now_s)

    def _may_wait(self, request: Request, refusal: Decision) -> bool:
        """Not where all backends fail: when they will be back nobody knows, and a client may know others."""
        is_known = request.model is None or self._registry.is_served(request.model)
        return request.has_body and is_known and refusal.reason is not Reason.FAILING

    def _hold(self, request: Request, phase: Phase, now_s: float) -> Placement:
        self._expire(now_s)
        rules = self._rules
        self._arrivals += 1
        priority = max(rules.min_priority, min(rules.max_priority, request.priority))
        waiter = Waiter(request, phase, priority, self._arrivals, now_s, now_s + rules.max_wait_s)
        line = self._lines.setdefault(request.model, ModelQueue(rules.max_waiting))
        self._by_age[waiter] = line
        shed = line.join(waiter)
        if shed is not None:
            del self._by_age[shed]
            refusal = self._refusal(shed, Reason.QUEUE_FULL, now_s, len(line))
            if shed is waiter:
                self.counts.count(Ending.FULL, 0.0)
                return refusal
            self._settle(shed, refusal, Ending.DISPLACED, now_s)
        hold = Hold(rules.max_wait_s + HOLD_MARGIN_S)
        return Placement(hold, Lease(partial(self._given_up, waiter)), waiter)

    def _given_up(self, waiter: Waiter, now_s: float) -> None:
        """The client has left."""
        if waiter in self._by_age:
            self._leave(waiter)
            self.counts.count(Ending.CLIENT_LEFT, now_s - waiter.since_s)

    def _freed(self, slot: int, now_s: float) -> None:
        """A slot has been given back: it is for the first of those who can use it."""
        if not self._by_age:
            return
        self._expire(now_s)
        for line in self._lines_for(slot):
            placement = self._try_first(line, now_s)
            if placement is not None and isinstance(placement.instruction, RouteTo):
                return

    def _lines_for(self, slot: int) -> list[ModelQueue]:
        """Lines whose model the backend serves, in the order of what their first ones deserve."""
        lines = [line for model, line in self._lines.items() if self._is_candidate(slot, model)]
        lines.sort(key=lambda line: (-line.first().priority, line.first().number))
        return lines[:MAX_LINES]

    def _is_candidate(self, slot: int, model: str | None) -> bool:
        slots = self._registry.candidates(model)
        return slots is not None and slot in slots

    def _try_first(self, line: ModelQueue, now_s: float) -> Placement | None:
        """The placement of the first one in the line; None where it still has to wait."""
        waiter = line.first()
        placement = self._router.attempt(waiter.request, waiter.phase, now_s)
        if not isinstance(placement, Placement):
            return None
        line.end_turn(waiter)
        self._leave(waiter)
        self._settle(waiter, placement, _ending(placement), now_s)
        return placement

    def _expire(self, now_s: float) -> None:
        while self._by_age and (waiter := self._oldest()).deadline_s <= now_s:
            self._leave(waiter)
            left = len(self._lines.get(waiter.request.model, ()))
            refusal = self._refusal(waiter, Reason.QUEUE_TIMEOUT, now_s, left)
            self._settle(waiter, refusal, Ending.TIMEOUT, now_s)

    def _refusal(self, waiter: Waiter, reason: Reason, now_s: float, waiting: int) -> Placement:
        return self._router.refuse(waiter.request, Decision(Layer.REJECT, reason), now_s, waiting)

    def _settle(self, waiter: Waiter, placement: Placement, ending: Ending, now_s: float) -> None:
        """It has left; the last to be done, since others may act upon it at once."""
        self.counts.count(ending, now_s - waiter.since_s)
        waiter.settle(placement)

    def _leave(self, waiter: Waiter) -> None:
        line = self._by_age.pop(waiter)
        line.leave(waiter)
        if not line:
            del self._lines[waiter.request.model]

    def _oldest(self) -> Waiter:
        return next(iter(self._by_age))


def _ending(placement: Placement) -> Ending:
    """How an attempt has settled a request."""
    if isinstance(placement.instruction, RouteTo):
        return Ending.LET_IN
    is_open = isinstance(placement.instruction, Continue)
    return Ending.PASSED_THROUGH if is_open else Ending.UNKNOWN_MODEL
