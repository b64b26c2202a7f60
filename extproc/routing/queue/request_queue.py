"""Requests that no backend can take now are held here, in one queue for each model.

It stands before the router as the `Placer` of every exchange. A request for a model that no other request
waits for is placed at once, as without a queue. Every other request waits, and is let in when

- a place is given back (`freed`): in the same step, so that none is idle while a request waits for it;
- `advance` finds room for another reason: a scrape, a probe that is due, another prediction, a new backend.
  It is called several times a second, which is more often than any of these changes.

An attempt is the whole decision, with everything that is known at that moment, and reserves in the same step.
Only the first request of a model is ever tried: a short request behind a long one, whose prediction is still
too late, waits with it. To let it pass would fill, again and again, the room that the long one waits for.

A request's limit holds over both waits: what it has waited here it may not wait at the server. Waits at the
router and at the servers pass at the same pace. So a request that has less left than it would have to wait at
any server waits in vain: it is refused at once, and does not hold up those behind it.

A model may have no server for a while: it is scaled to zero, and the requests that wait for it are why it is
started. They have a deadline of their own, and once it has a server their wait for a place begins.

A backend is filled up to its limit here, without hysteresis (`config.guard_stage` sets the limit so).
Hysteresis keeps clients from being taken in and refused in turns; but here the next one follows at once, and
a batch that has to shrink to the resume load before it is filled again is capacity lost.
"""

from collections import Counter, OrderedDict
from itertools import islice

from extproc.exchange.messages import Hold, Phase, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.backend import Backend
from extproc.fleet.registry import Registry
from extproc.policy.decision import Decision, Layer, Reason
from extproc.request.request import Request
from extproc.routing.queue.model_queue import ModelQueue
from extproc.routing.queue.queue_rules import HOLD_MARGIN_S, QueueRules
from extproc.routing.queue.starting_models import StartingModels
from extproc.routing.queue.wait_counts import Ending, WaitCounts, ending_of
from extproc.routing.queue.waiting_requests import Waiter, WaitingRequests
from extproc.routing.router import Router

RETRY_S = 0.05
"""Guessed: half a scrape's interval, and what scrapes say is late by several of them."""

MAX_MODELS_TRIED = 16
"""Guessed: the first request of this many models is tried in one go, and each may cost a prediction."""

MAX_MODELS = 256
"""Guessed: while requests wait for this many models, no more may for names that no server lists."""

MAX_TRIED = 64
"""Guessed: this many requests of one model are let in, or refused for being late, in one go: some 3 ms."""


class RequestQueue:
    """All requests that wait: each model has its queue, and all are known by deadline and by age."""

    def __init__(self, router: Router, registry: Registry, rules: QueueRules) -> None:
        self.counts = WaitCounts()
        self._router = router
        self._registry = registry
        self._rules = rules
        self._queues: OrderedDict[str | None, ModelQueue] = OrderedDict()
        self._waiting = WaitingRequests()
        self._arrivals = 0
        self._starting = StartingModels(registry, rules)
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return len(self._waiting)

    def depths(self) -> dict[str, int]:
        """Return the number of waiting requests by model.

        The name is empty where requests name none, or one that is known from clients alone.
        """
        depths = Counter[str]()
        for model, queue in self._queues.items():
            is_known = model and (self._registry.is_listed(model) or self._starting.may_be_started(model))
            depths[model if model and is_known else ""] += len(queue)
        return depths

    def oldest_s(self, now_s: float) -> float:
        """Return how long the oldest request has been waiting, in seconds."""
        return now_s - self._waiting.oldest().since_s if self._waiting else 0.0

    def due_s(self, now_s: float) -> float:
        """Return when `advance` is to be called again."""
        again_s = now_s + RETRY_S
        return min(again_s, self._waiting.first().deadline_s) if self._waiting else again_s

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        """Place a request now, or hold it, or refuse it."""
        is_behind_others = request.has_body and request.model in self._queues and not request.response
        if not is_behind_others and not self._starting.is_at_zero(request):
            tried = self._router.attempt(request, phase, now_s, search=self._router.search)
            if isinstance(tried, Placement):
                return tried
            if not self._may_wait(request, tried):
                return self._router.refuse(request, phase, tried, now_s)
        if self._is_closed:
            return self._router.pass_through(request, phase)
        return self._hold(request, phase, now_s)

    def advance(self, now_s: float) -> None:
        """Refuse requests whose time is over, and let in those that find room by now."""
        self._expire(now_s)
        for model in tuple(islice(self._queues, MAX_MODELS_TRIED)):
            self._queues.move_to_end(model)  # next time it is the turn of others
            for _ in range(MAX_TRIED):
                if model not in self._queues or self._try_first(self._queues[model], now_s) is None:
                    break

    def close(self, now_s: float) -> None:
        """Send all that wait to Envoy's own pool, where requests go once the sidecar has ended."""
        self._is_closed = True
        for waiter in tuple(self._waiting):
            self._leave(waiter)
            passed = self._router.pass_through(waiter.request, waiter.phase)
            self._settle(waiter, passed, Ending.PASSED_THROUGH, now_s)

    def _may_wait(self, request: Request, refusal: Decision) -> bool:
        """Return whether to hold it; not where all backends fail, or it would be late.

        Nor one that goes on from a stored response: it waits for a single backend, and would hold up those
        behind it, which others could take.
        """
        model, registry = request.model, self._registry
        is_known = model is None or registry.is_listed(model)
        if not is_known and model is not None and len(self._queues) < MAX_MODELS:
            is_known = registry.is_served(model)
        is_in_vain = refusal.reason in {Reason.FAILING, Reason.TOO_LATE}
        return request.has_body and is_known and not is_in_vain and not request.response

    def _hold(self, request: Request, phase: Phase, now_s: float) -> Placement:
        self._expire(now_s)
        rules = self._rules
        self._arrivals += 1
        priority = max(rules.min_priority, min(rules.max_priority, request.priority))
        limit_s = self._router.wait_limit_s(request)
        longest_s = held_s = rules.place_wait_s(limit_s)
        is_starting = self._starting.is_at_zero(request)
        if is_starting:
            self._starting.waited_for.add(request.model)
        elif request.model in self._starting.waited_for and request.model in self._queues:
            self._begin(request.model, now_s)  # before this one, which came later
        if is_starting and request.wait_limit_s is None:
            longest_s, held_s = rules.max_start_wait_s, rules.both_waits_s(limit_s)
        waiter = Waiter(request, phase, priority, self._arrivals, now_s, now_s + longest_s, self._given_up)
        waiter.is_starting = is_starting
        queue = self._queues.setdefault(request.model, ModelQueue(rules.max_waiting))
        self._waiting.add(waiter)
        shed = queue.join(waiter)
        if shed is not None:
            self._waiting.remove(shed)
            refusal = self._refusal(shed, Reason.QUEUE_FULL, now_s, len(queue))
            if shed is waiter:
                self.counts.count(ending_of(refusal, Ending.FULL), 0.0)
                return refusal
            self._settle(shed, refusal, ending_of(refusal, Ending.DISPLACED), now_s)
        return Placement(Hold(held_s + HOLD_MARGIN_S), waiter)

    def _begin(self, model: str | None, now_s: float) -> None:
        """Have the requests for a model that has got a server wait for a place there, from now on."""
        self._starting.waited_for.discard(model)
        queue = self._queues[model]
        for waiter in [each for each in self._waiting if each.is_starting and each.request.model == model]:
            queue.leave(waiter)
            if waiter.request.wait_limit_s is None:
                limit_s = self._router.wait_limit_s(waiter.request)
                until_s = waiter.since_s + self._rules.both_waits_s(limit_s)
                self._waiting.put_off(waiter, min(until_s, now_s + self._rules.place_wait_s(limit_s)))
                waiter.counts_from_s = now_s
            waiter.is_starting = False
            queue.join(waiter)

    def _given_up(self, waiter: Waiter, now_s: float) -> None:
        """Take out a request whose client has left."""
        if waiter in self._waiting:
            self._leave(waiter)
            self.counts.count(Ending.CLIENT_LEFT, now_s - waiter.since_s)

    def freed(self, backend: Backend, now_s: float) -> None:
        """Let in the first request that can use the place which was given back."""
        if not self._waiting:
            return
        self._expire(now_s)
        for queue in self._queues_for(backend):
            for _ in range(MAX_TRIED):
                placement = self._try_first(queue, now_s) if queue else None
                if placement is None:
                    break
                if isinstance(placement.instruction, RouteTo):
                    return

    def _queues_for(self, backend: Backend) -> list[ModelQueue]:
        """Return the queues of models that the backend serves, by priority and deadline of their first."""
        candidates = self._registry.candidates
        queues = [queue for model, queue in self._queues.items() if backend in (candidates(model) or ())]
        queues.sort(key=lambda queue: (-queue.first().priority, queue.first().turn))
        return queues[:MAX_MODELS_TRIED]

    def _try_first(self, queue: ModelQueue, now_s: float) -> Placement | None:
        """Return the placement of the first request in the queue; None where it still has to wait."""
        waiter = queue.first()
        if self._starting.is_at_zero(waiter.request):
            return None
        if waiter.request.model in self._starting.waited_for:
            self._begin(waiter.request.model, now_s)
            waiter = queue.first()
        placement = self._router.attempt(waiter.request, waiter.phase, now_s, now_s - waiter.counts_from_s)
        if not isinstance(placement, Placement):
            return self._time_out(waiter, now_s) if placement.reason is Reason.TOO_LATE else None
        queue.end_turn(waiter)
        self._leave(waiter)
        self._settle(waiter, placement, ending_of(placement), now_s)
        return placement

    def _expire(self, now_s: float) -> None:
        while self._waiting and (waiter := self._waiting.first()).deadline_s <= now_s:
            self._time_out(waiter, now_s)

    def _time_out(self, waiter: Waiter, now_s: float) -> Placement:
        self._leave(waiter)
        left = len(self._queues.get(waiter.request.model, ()))
        is_own_limit = waiter.request.wait_limit_s is not None
        reason = Reason.TOO_LATE if is_own_limit else Reason.QUEUE_TIMEOUT
        if self._starting.is_at_zero(waiter.request):
            reason = Reason.MODEL_GONE
        refusal = self._refusal(waiter, reason, now_s, left)
        self._settle(waiter, refusal, ending_of(refusal, Ending.TIMEOUT), now_s)
        return refusal

    def _refusal(self, waiter: Waiter, reason: Reason, now_s: float, waiting: int) -> Placement:
        decision = Decision(Layer.REJECT, reason)
        return self._router.refuse(waiter.request, waiter.phase, decision, now_s, waiting)

    def _settle(self, waiter: Waiter, placement: Placement, ending: Ending, now_s: float) -> None:
        """Answer a request that has left; the last to be done, since others may act upon it at once."""
        self.counts.count(ending, now_s - waiter.since_s)
        waiter.settle(placement)

    def _leave(self, waiter: Waiter) -> None:
        queue = self._queues[waiter.request.model]
        self._waiting.remove(waiter)
        queue.leave(waiter)
        if not queue:
            del self._queues[waiter.request.model]
            self._starting.waited_for.discard(waiter.request.model)
