"""Requests that no backend can take now are held here, in one queue for each model.

It stands before the router as the `Placer` of every exchange. A request for a model that no other request
waits for is placed at once, as without a queue. Every other request waits, and is let in when

- a place is given back (`freed`): in the same step, so that none is idle while a request waits for it;
- `advance` finds room for another reason: a scrape, a probe that is due, another prediction, a new backend.
  It is called several times a second, which is more often than any of these changes.

An attempt is the whole decision, with everything that is known at that moment, and reserves in the same step.
Only the first request of a model is ever tried: a short request behind a long one, whose prediction is still
too late, waits with it. To let it pass would fill, again and again, the room that the long one waits for.

A backend is filled up to its limit here, without hysteresis (`config.guard_stage` sets the limit so).
Hysteresis keeps clients from being taken in and refused in turns; but here the next one follows at once, and
a batch that has to shrink to the resume load before it is filled again is capacity lost.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Annotated

from annotated_types import Ge, Gt, Le

from extproc.exchange.messages import Continue, Hold, Phase, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.backend import Backend
from extproc.fleet.bounds import Count
from extproc.fleet.registry import Registry
from extproc.outcomes.outcome_counts import Histogram
from extproc.policy.decision import Decision, Layer, Reason
from extproc.request.request import MAX_PRIORITY, Request
from extproc.routing.queue.model_queue import ModelQueue, Waiter
from extproc.routing.router import Router

WAIT_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0)


class Ending(StrEnum):
    """Why a request waits no more."""

    LET_IN = "let_in"
    FULL = "full"  # refused on arrival
    DISPLACED = "displaced"  # pushed out by one that deserves the place more
    TIMEOUT = "timeout"
    CLIENT_LEFT = "client_left"
    UNKNOWN_MODEL = "unknown_model"  # its model has gone
    PASSED_THROUGH = "passed_through"  # the sidecar ends, or has no backend any more: Envoy's own pool


class WaitCounts:
    """Counts the requests that had to wait since the start; `waits` has the times of those let in."""

    def __init__(self) -> None:
        self.endings: Counter[Ending] = Counter()
        self.waits = Histogram(WAIT_BOUNDS_S)

    def count(self, ending: Ending, waited_s: float) -> None:
        """Count a request that left the queue."""
        self.endings[ending] += 1
        if ending is Ending.LET_IN:
            self.waits.add(waited_s)


HOLD_MARGIN_S = 5.0
"""Guessed: Envoy is asked for so much more patience than a request may wait. A request that is not answered
within it, because the sidecar stands still, goes to Envoy's own pool."""

RETRY_S = 0.05
"""Guessed: half a scrape's interval, and what scrapes say is late by several of them."""

MAX_MODELS_TRIED = 16
"""Guessed: the first request of so many models is tried in one go, and each may cost a prediction."""

Priority = Annotated[int, Ge(-MAX_PRIORITY), Le(MAX_PRIORITY)]


@dataclass(frozen=True, slots=True)
class QueueRules:
    """How many may wait for each model, for how long, and what priorities they may have."""

    max_waiting: Annotated[Count, Le(100_000)] = 1000  # guessed: ten times a backend's max_active
    max_wait_s: Annotated[float, Gt(0), Le(600)] = 10.0  # guessed; what envoy.yaml allows is 600
    min_priority: Priority = 0  # both 0: whatever clients ask for, they are equal
    max_priority: Priority = 0

    def __post_init__(self) -> None:
        if self.min_priority > self.max_priority:
            raise ValueError("min_priority must not be larger than max_priority")


class RequestQueue:
    """All requests that wait, by model and by age: all may wait equally long, so the oldest is due first."""

    def __init__(self, router: Router, registry: Registry, rules: QueueRules) -> None:
        self.counts = WaitCounts()
        self._router = router
        self._registry = registry
        self._rules = rules
        self._queues: OrderedDict[str | None, ModelQueue] = OrderedDict()
        self._by_age: OrderedDict[Waiter, ModelQueue] = OrderedDict()
        self._arrivals = 0
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return len(self._by_age)

    def depths(self) -> dict[str, int]:
        """Return the number of waiting requests by model; the name is empty where requests name none."""
        return {model or "": len(queue) for model, queue in self._queues.items()}

    def oldest_s(self, now_s: float) -> float:
        """Return how long the oldest request has been waiting, in seconds."""
        return now_s - self._oldest().since_s if self._by_age else 0.0

    def due_s(self, now_s: float) -> float:
        """Return when `advance` is to be called again."""
        again_s = now_s + RETRY_S
        return min(again_s, self._oldest().deadline_s) if self._by_age else again_s

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        """Place a request now, or hold it, or refuse it."""
        if not (request.has_body and request.model in self._queues):
            tried = self._router.attempt(request, phase, now_s)
            if isinstance(tried, Placement):
                return tried
            if not self._may_wait(request, tried):
                return self._router.refuse(request, phase, tried, now_s)
        return self._router.pass_through(phase) if self._is_closed else self._hold(request, phase, now_s)

    def advance(self, now_s: float) -> None:
        """Refuse requests whose time is over, and let in those that find room by now."""
        self._expire(now_s)
        for model in tuple(islice(self._queues, MAX_MODELS_TRIED)):
            self._queues.move_to_end(model)  # next time it is the turn of others
            while model in self._queues and self._try_first(self._queues[model], now_s) is not None:
                pass

    def close(self, now_s: float) -> None:
        """Send all that wait to Envoy's own pool, where requests go once the sidecar has ended."""
        self._is_closed = True
        for waiter in tuple(self._by_age):
            self._leave(waiter)
            self._settle(waiter, self._router.pass_through(waiter.phase), Ending.PASSED_THROUGH, now_s)

    def _may_wait(self, request: Request, refusal: Decision) -> bool:
        """Return whether to hold it; not where all backends fail, since nothing tells for how long."""
        is_known = request.model is None or self._registry.is_served(request.model)
        return request.has_body and is_known and refusal.reason is not Reason.FAILING

    def _hold(self, request: Request, phase: Phase, now_s: float) -> Placement:
        self._expire(now_s)
        rules = self._rules
        self._arrivals += 1
        priority = max(rules.min_priority, min(rules.max_priority, request.priority))
        deadline_s = now_s + rules.max_wait_s
        waiter = Waiter(request, phase, priority, self._arrivals, now_s, deadline_s, self._given_up)
        queue = self._queues.setdefault(request.model, ModelQueue(rules.max_waiting))
        self._by_age[waiter] = queue
        shed = queue.join(waiter)
        if shed is not None:
            del self._by_age[shed]
            refusal = self._refusal(shed, Reason.QUEUE_FULL, now_s, len(queue))
            if shed is waiter:
                self.counts.count(_ending(refusal, Ending.FULL), 0.0)
                return refusal
            self._settle(shed, refusal, _ending(refusal, Ending.DISPLACED), now_s)
        return Placement(Hold(rules.max_wait_s + HOLD_MARGIN_S), waiter)

    def _given_up(self, waiter: Waiter, now_s: float) -> None:
        """Take out a request whose client has left."""
        if waiter in self._by_age:
            self._leave(waiter)
            self.counts.count(Ending.CLIENT_LEFT, now_s - waiter.since_s)

    def freed(self, backend: Backend, now_s: float) -> None:
        """Let in the first request that can use the place which was given back."""
        if not self._by_age:
            return
        self._expire(now_s)
        for queue in self._queues_for(backend):
            placement = self._try_first(queue, now_s)
            if placement is not None and isinstance(placement.instruction, RouteTo):
                return

    def _queues_for(self, backend: Backend) -> list[ModelQueue]:
        """Return the queues of models that the backend serves, by priority and arrival of their first."""
        queues = [queue for model, queue in self._queues.items() if self._is_candidate(backend, model)]
        queues.sort(key=lambda queue: (-queue.first().priority, queue.first().number))
        return queues[:MAX_MODELS_TRIED]

    def _is_candidate(self, backend: Backend, model: str | None) -> bool:
        return backend in (self._registry.candidates(model) or ())

    def _try_first(self, queue: ModelQueue, now_s: float) -> Placement | None:
        """Return the placement of the first request in the queue; None where it still has to wait."""
        waiter = queue.first()
        placement = self._router.attempt(waiter.request, waiter.phase, now_s)
        if not isinstance(placement, Placement):
            return None
        queue.end_turn(waiter)
        self._leave(waiter)
        self._settle(waiter, placement, _ending(placement), now_s)
        return placement

    def _expire(self, now_s: float) -> None:
        while self._by_age and (waiter := self._oldest()).deadline_s <= now_s:
            self._leave(waiter)
            left = len(self._queues.get(waiter.request.model, ()))
            refusal = self._refusal(waiter, Reason.QUEUE_TIMEOUT, now_s, left)
            self._settle(waiter, refusal, _ending(refusal, Ending.TIMEOUT), now_s)

    def _refusal(self, waiter: Waiter, reason: Reason, now_s: float, waiting: int) -> Placement:
        decision = Decision(Layer.REJECT, reason)
        return self._router.refuse(waiter.request, waiter.phase, decision, now_s, waiting)

    def _settle(self, waiter: Waiter, placement: Placement, ending: Ending, now_s: float) -> None:
        """Answer a request that has left; the last to be done, since others may act upon it at once."""
        self.counts.count(ending, now_s - waiter.since_s)
        waiter.settle(placement)

    def _leave(self, waiter: Waiter) -> None:
        queue = self._by_age.pop(waiter)
        queue.leave(waiter)
        if not queue:
            del self._queues[waiter.request.model]

    def _oldest(self) -> Waiter:
        return next(iter(self._by_age))


def _ending(placement: Placement, refused: Ending = Ending.UNKNOWN_MODEL) -> Ending:
    """Return how a placement has settled a request, `refused` where it was."""
    if isinstance(placement.instruction, RouteTo):
        return Ending.LET_IN
    return Ending.PASSED_THROUGH if isinstance(placement.instruction, Continue) else refused
