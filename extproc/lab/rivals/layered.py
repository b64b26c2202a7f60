"""The production policy in virtual time: the sidecar's own core, one for each router.

Nothing is copied or imitated: `Core.place` decides and reserves, or holds a request; the lease is ended as an
exchange would end it, `Core.scraped` gets the gauges as the scraper hands them over, and `Core.learn` the
entry that Envoy's access log would have. The surroundings of production are assumed: the clusters
are loaded, the model is in place, input tokens are exact.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from extproc.config.rules import core_rules_of_stages
from extproc.errors import ModelFileError
from extproc.exchange.messages import Phase, Reject, RouteTo
from extproc.exchange.placement import HeldLease, Lease, Placement
from extproc.fleet.endpoint import ENDPOINT_SUFFIX, Endpoint
from extproc.lab.evaluation.simulated_server import Gauges
from extproc.lab.rivals.as_in_production import MODEL, log_entry, request_of, signals
from extproc.lab.rivals.policy import HELD, Candidates, Ended, Policy
from extproc.lab.traffic.arrivals import Arrival
from extproc.learning.model_in_use import read_offer
from extproc.outcomes.facts import Sample
from extproc.request.request import Request
from extproc.routing.core import Core, CoreRules
from extproc.routing.replicas import Report


@dataclass(frozen=True, slots=True)
class LayeredRules:
    """The production policy's settings, and the content of its model file if it has one.

    `record` takes the sample of each outcome, as a sidecar's store would.
    """

    core: CoreRules
    model_file: bytes | None = None
    record: Callable[[Sample], None] | None = None


def layered_rules(stages: Mapping[str, Any], model_file: bytes | None = None) -> LayeredRules:
    """Return the rules of a configuration with these stages, everything else at its default."""
    return LayeredRules(core_rules_of_stages(stages), model_file)


class Layered(Policy):
    """One sidecar's policy; `names` are those of the backends, which a model file may know.

    With `adapter_places` the backends have this many, and it knows which request is for which adapter.
    """

    needs_gauges = True

    def __init__(
        self,
        names: Sequence[str],
        rules: LayeredRules,
        rng: np.random.Generator,
        adapter_places: Sequence[int | None] = (),
    ) -> None:
        self._adapter_places = adapter_places
        models, is_resolving = frozenset({MODEL}), bool(adapter_places)
        self._endpoints = [
            Endpoint(name, "127.0.0.1", port, models, resolves_adapters=is_resolving)
            for port, name in enumerate(names, start=1)
        ]
        self._indices = {name: index for index, name in enumerate(names)}
        self.core = Core(rules.core, rng)
        self._record = rules.record
        self._settled: list[tuple[int, int | None]] = []
        self._placed: dict[int, tuple[Lease | None, RouteTo, float]] = {}
        self._retry_after_s: dict[int, float] = {}
        self._now_s = 0.0
        if rules.model_file is not None and not self.core.use_model(read_offer(rules.model_file)):
            raise ModelFileError(self.core.model.last_refusal or "the model file was refused")
        self.members(range(len(names)), 0.0)

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int | None:
        """Have the core place it."""
        self._now_s = now_s
        placement = self.core.place(self._as_request(request), Phase.REQUEST_BODY, now_s)
        if not isinstance(placement.lease, HeldLease):
            return self._sent(request_id, placement)
        placement.lease.respond = partial(self._settle, request_id)
        return HELD

    def estimates_s(self, request: Arrival, now_s: float) -> dict[int, float]:
        """Return the estimated TTFT on each candidate, by its number in the fleet; this changes nothing."""
        every = len(self._endpoints)
        found = self.core.router.candidate_estimates(self._as_request(request), now_s, every)
        return dict(sorted((self._indices[each.backend], each.ttft_s) for each in found))

    def settled(self) -> list[tuple[int, int | None]]:
        """Return how the queue has answered since."""
        settled, self._settled = self._settled, []
        return settled

    def retry_after_s(self, request_id: int) -> float | None:
        """Return the header of the refusal, if it had one."""
        return self._retry_after_s.pop(request_id, None)

    def advance(self, now_s: float) -> float | None:
        """Advance the queue, as its clock does."""
        queue = self.core.queue
        if queue is None:
            return None
        self._now_s = now_s
        queue.advance(now_s)
        return queue.due_s(now_s) if queue.waiting else None

    def _settle(self, request_id: int, placement: Placement) -> None:
        self._settled.append((request_id, self._sent(request_id, placement)))

    def _sent(self, request_id: int, placement: Placement) -> int | None:
        instruction = placement.instruction
        if isinstance(instruction, Reject) and "retry-after" in instruction.headers:
            self._retry_after_s[request_id] = float(instruction.headers["retry-after"])
        if not isinstance(instruction, RouteTo):
            return None
        self._placed[request_id] = placement.lease, instruction, self._now_s
        return self._indices[instruction.cluster.removesuffix(ENDPOINT_SUFFIX)]

    def members(self, backends: Sequence[int], now_s: float) -> None:
        """Note that service discovery has found these; Envoy has a cluster for each at once."""
        self.core.advance(now_s)
        found = [self._endpoints[backend] for backend in backends]
        self.core.set_members(found, now_s, found)

    def ended(self, request: Ended, now_s: float) -> None:
        """End the stream, and learn from its log entry: the time at the router is not in that."""
        self._now_s = now_s
        lease, instruction, sent_s = self._placed.pop(request.request_id)
        if lease is not None:
            lease.end(now_s)
        outcome = self.core.learn(log_entry(request, instruction.metadata, sent_s), now_s)
        if outcome is not None and self._record is not None:
            self._record(outcome.sample)

    def scraped(self, backend: int, gauges: Gauges, now_s: float) -> None:
        """Note that the scraper has read a backend's metrics."""
        member = self.core.registry.backend_named(self._endpoints[backend].name)
        if member is not None:
            places = self._adapter_places[backend] if self._adapter_places else None
            self.core.scraped(member, signals(gauges, places), member.own, now_s)

    def _as_request(self, arrival: Arrival) -> Request:
        return request_of(arrival, knows_adapters=bool(self._adapter_places))

    def take_reports(self) -> Sequence[Report]:
        """Return the prompts that it has sent since, as a sidecar would report them."""
        return () if self.core.replicas is None else self.core.replicas.take()

    def heard(self, router: int, reports: Sequence[Report], now_s: float) -> None:
        """Note the prompts that another router has sent."""
        if self.core.replicas is not None:
            self.core.replicas.heard(str(router), reports, now_s)

    def scrape_refused(self, backend: int, now_s: float) -> None:
        """Note that the scraper was refused a connection."""
        member = self.core.registry.backend_named(self._endpoints[backend].name)
        if member is not None:
            member.scrape_refused(now_s)


def decisions_of(policies: Iterable[Policy]) -> Counter[str]:
    """Return the decisions of the layered ones together, by layer and reason, in the order of their names."""
    totals: Counter[str] = Counter()
    for policy in policies:
        if isinstance(policy, Layered):
            for (layer, reason), count in policy.core.router.counts.by_reason.items():
                totals[f"{layer.value}/{reason.value}"] += count
    return Counter(dict(sorted(totals.items())))
