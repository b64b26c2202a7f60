"""The production policy in virtual time: the sidecar's own fleet, router and feedback, one set per router.

Nothing is copied or imitated: `Router.place` decides and reserves, or `RequestQueue.place`, which may hold;
the lease is ended as an exchange would end it, `Fleet.scraped` gets the gauges as the scraper hands them
over, and `Feedback.learn` the entry that Envoy's access log would have. What production does around it is
assumed to be done: the clusters are loaded, the model is in place, input tokens are exact.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from extproc.errors import ModelFileError
from extproc.exchange.messages import Phase, RouteTo
from extproc.exchange.placement import Lease, Placement
from extproc.fleet.backend import Endpoint
from extproc.fleet.fleet import CAPACITY, Fleet, FleetRules
from extproc.fleet.prediction_record import TrackRecord, TrustRule
from extproc.fleet.registry import Registry
from extproc.fleet.signals import Signals
from extproc.lab.engine.engine_limits import DEFAULT_BLOCK_SIZE
from extproc.lab.evaluation.simulated_server import Gauges
from extproc.lab.rivals.policy import HELD, Candidate, Ended, Policy
from extproc.lab.traffic.arrivals import Arrival
from extproc.learning.model_in_use import Answer, ModelSlot
from extproc.outcomes.log_entry import LogEntry
from extproc.outcomes.outcome import TTFT_TAG
from extproc.policy.decision_counts import DecisionCounts
from extproc.request.prefix import BLOCK_ENDS
from extproc.request.request import InputSize, Request, RequestKind
from extproc.request.token_learning import TokenLearning
from extproc.request.token_ratio import TokenRatios
from extproc.routing.feedback import Feedback
from extproc.routing.queue.queue_rules import QueueRules
from extproc.routing.queue.request_queue import RequestQueue
from extproc.routing.router import Router, RouterRules

MODEL = "simulated"
BYTES_PER_TOKEN = 4
_FLAGS = {False: frozenset[str](), True: frozenset({"UF"})}
"""Envoy's, of a request that was answered and of one that failed: connecting upstream failed."""


@dataclass(frozen=True, slots=True)
class LayeredRules:
    """The production policy's settings, and the content of its model file if it has one.

    Without a `queue` nobody waits.
    """

    fleet: FleetRules
    router: RouterRules
    trust: TrustRule
    model_file: bytes | None = None
    queue: QueueRules | None = None


class Layered(Policy):
    """One sidecar's policy; `names` are those of the backends, which a model file may know."""

    needs_gauges = True

    def __init__(self, names: Sequence[str], rules: LayeredRules, rng: np.random.Generator) -> None:
        backends = [
            Endpoint(name, "127.0.0.1", port, frozenset({MODEL})) for port, name in enumerate(names, start=1)
        ]
        self._fleet = Fleet(rules.fleet)
        self._registry = Registry(self._fleet, settle_s=0.0)
        self._backends = backends
        self._indices = {name: index for index, name in enumerate(names)}
        self._record = TrackRecord(CAPACITY, rules.trust)
        self._models = ModelSlot()
        tokens = TokenLearning(TokenRatios())
        self._router = Router(
            self._fleet, self._registry, self._models, self._record, tokens, rules.router, rng
        )
        self._feedback = Feedback(self._fleet, self._registry, self._record, tokens, self._router.bookings)
        self.room = (
            RequestQueue(self._router, self._registry, rules.queue) if rules.queue is not None else None
        )
        self._place = self._router.place if self.room is None else self.room.place
        self._settled: list[tuple[int, int | None]] = []
        self._placed: dict[int, tuple[Lease | None, RouteTo, float]] = {}
        self._now_s = 0.0
        if rules.model_file is not None:
            self._use_model(rules.model_file)
        self.members(range(len(names)), 0.0)

    @property
    def counts(self) -> DecisionCounts:
        """Its decisions by layer and reason."""
        return self._router.counts

    @property
    def limits(self) -> list[int]:
        """The most requests that each member of the fleet may hold now."""
        return [self._fleet.states[member.slot].max_active for member in self._registry.members]

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """What the router says, or the room before it."""
        self._now_s = now_s
        placement = self._place(_as_request(request), Phase.REQUEST_BODY, now_s)
        if placement.ticket is None:
            return self._sent(request_id, placement)
        placement.ticket.tell = partial(self._settle, request_id)
        return HELD

    def settled(self) -> list[tuple[int, int | None]]:
        """What the room has said since."""
        settled, self._settled = self._settled, []
        return settled

    def advance(self, now_s: float) -> float | None:
        """What the clock of the room does."""
        if self.room is None:
            return None
        self._now_s = now_s
        self.room.advance(now_s)
        return self.room.due_s(now_s) if self.room.waiting else None

    def _settle(self, request_id: int, placement: Placement) -> None:
        self._settled.append((request_id, self._sent(request_id, placement)))

    def _sent(self, request_id: int, placement: Placement) -> int | None:
        instruction = placement.instruction
        if not isinstance(instruction, RouteTo):
            return None
        self._placed[request_id] = placement.lease, instruction, self._now_s
        return self._indices[instruction.cluster]

    def members(self, backends: Sequence[int], now_s: float) -> None:
        """Service discovery has found these; Envoy has a cluster for each at once."""
        self._registry.advance(now_s)
        found = [self._backends[backend] for backend in backends]
        offsets = self._known_offsets()
        for slot in self._registry.apply(found, now_s, found):
            self._record.forget(slot, offsets.get(slot))

    def ended(self, request: Ended, now_s: float) -> None:
        """The stream ends, and the access log tells of it: what went before, at the router, is not in it."""
        self._now_s = now_s
        lease, instruction, sent_s = self._placed.pop(request.request_id)
        if lease is not None:
            lease.end(now_s)
        entry = LogEntry(
            started_at_s=request.arrival.at_s,
            duration_s=request.duration_s,
            status=503 if request.is_failed else 200,
            attempts=1,
            response_flags=_FLAGS[request.is_failed],
            response_body_bytes=BYTES_PER_TOKEN * request.arrival.output_tokens,
            metadata=instruction.metadata,
            tags=_tags(request, sent_s),
        )
        self._feedback.learn(entry, now_s)

    def scraped(self, backend: int, gauges: Gauges, now_s: float) -> None:
        """The scraper has read a backend's metrics."""
        signals = Signals(
            float(gauges.running),
            float(gauges.waiting),
            gauges.kv_cache_fraction,
            float(gauges.prompt_tokens),
            float(gauges.generation_tokens),
            float(gauges.prefix_hits),
            float(gauges.finished),
            float(gauges.kv_cache_tokens),
        )
        slot = self._registry.slot_of(self._backends[backend].name)
        if slot is not None:
            self._fleet.scraped(slot, signals, self._fleet.states[slot].own, now_s)

    def scrape_refused(self, backend: int, now_s: float) -> None:
        """The scraper has found nobody there."""
        slot = self._registry.slot_of(self._backends[backend].name)
        if slot is not None:
            self._fleet.scrape_refused(slot, now_s)

    def _use_model(self, data: bytes) -> None:
        verdict = self._models.offer(data, 0.0)
        model = self._models.current
        if verdict.answer is Answer.REFUSED or model is None:
            raise ModelFileError(verdict.reason)
        self._record.begin(model.manifest.model_version)
        if model.manifest.medium_load is not None:
            self._fleet.expect_medium_load(model.manifest.medium_load)

    def _known_offsets(self) -> dict[int, float]:
        """What the model file says of members by name, by slot."""
        model = self._models.current
        found = {} if model is None else model.manifest.offsets
        slots = {name: self._registry.slot_of(name) for name in found}
        return {slot: found[name] for name, slot in slots.items() if slot is not None}


def _tags(request: Ended, sent_s: float) -> dict[str, str]:
    """What Envoy times: it begins to when the request is sent."""
    if request.ttft_s is None:
        return {}
    return {TTFT_TAG: f"{(request.arrival.at_s + request.ttft_s - sent_s) * 1e6:.0f}"}


def _prefix(content: Sequence[int], text_bytes: int) -> tuple[int, ...]:
    """The chain that would be read of the prompt's text: a block's number stands for all before it, too."""
    if not content:
        return ()
    ends = BLOCK_ENDS[: bisect_right(BLOCK_ENDS, text_bytes)]
    return tuple(content[end // (BYTES_PER_TOKEN * DEFAULT_BLOCK_SIZE) - 1] for end in ends)


def _as_request(arrival: Arrival) -> Request:
    text_bytes = BYTES_PER_TOKEN * arrival.prompt_tokens
    return Request(
        kind=RequestKind.CHAT,
        path="/v1/chat/completions",
        model=MODEL,
        is_stream=True,
        input_size=InputSize(text_bytes=text_bytes),
        input_tokens=arrival.prompt_tokens,
        token_limit=None,
        priority=arrival.priority,
        body_bytes=text_bytes,
        prefix=_prefix(arrival.content, text_bytes),
        prompt_bytes=text_bytes,
        has_body=True,
        tenant=arrival.tenant,
    )
