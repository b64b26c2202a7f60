"""Whatever happens to the core in whatever order, counts of requests are right and nothing stays behind."""

from collections import defaultdict
from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.build import a_core, a_request, an_endpoint, core_rules, fleet_rules

from extproc.exchange.messages import Hold, Phase, RouteTo
from extproc.exchange.placement import HeldLease, Lease, Placement
from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.signals import Signals
from extproc.outcomes.outcome import FIRST_TAG, SECOND_TAG, STAGE_TAG, LogEntry, RetryStage
from extproc.request.request import Request
from extproc.routing.queue.queue_rules import QueueRules

SETTLE_S, MAX_WAIT_S = 1.0, 5.0
QUEUE = QueueRules(max_waiting=3, max_wait_s=MAX_WAIT_S, min_priority=-5, max_priority=5)
RULES = core_rules(fleet_rules(max_active=3), queue=QUEUE, settle_s=SETTLE_S)

NUMBERS = st.integers(1, 4)
PORTS = st.integers(1, 6)
PICKS = st.integers(0, 1000)


class CountedCore(RuleBasedStateMachine):
    """A core, and the simplest reference: for each backend the leases that are open there."""

    def __init__(self) -> None:
        super().__init__()
        self.core = a_core([an_endpoint(1), an_endpoint(2)], RULES)
        self.now_s = 0.0
        self.found: dict[str, Endpoint] = {"vllm-1": an_endpoint(1), "vllm-2": an_endpoint(2)}
        self.open: defaultdict[Backend, list[Lease]] = defaultdict(list)
        self.held: list[HeldLease] = []
        self.routed: list[RouteTo] = []
        self.addresses: dict[Backend, str] = {}

    @rule(
        model=st.sampled_from(["m", "n", None]),
        has_body=st.booleans(),
        priority=st.integers(-1, 1),
        prefix=st.lists(st.integers(1, 3), max_size=3),
        count=st.integers(1, 4),
    )
    def place(self, model: str | None, has_body: bool, priority: int, prefix: list[int], count: int) -> None:
        for _ in range(count):
            self.place_one(
                a_request(
                    model, has_body=has_body, priority=priority, prefix=tuple(prefix), prompt_bytes=4096
                )
            )

    def place_one(self, request: Request) -> None:
        model = request.model
        placement = self.core.place(request, Phase.REQUEST_BODY, self.now_s)
        if isinstance(placement.lease, HeldLease):
            assert isinstance(placement.instruction, Hold)
            placement.lease.respond = partial(self.answer, placement.lease, model)
            self.held.append(placement.lease)
        else:
            self.take(placement, model)

    def answer(self, held: HeldLease, model: str | None, placement: Placement) -> None:
        self.held.remove(held)
        held.end(self.now_s)
        self.take(placement, model)

    def take(self, placement: Placement, model: str | None) -> None:
        if not isinstance(placement.instruction, RouteTo):
            assert placement.lease is None
            return
        assert placement.lease is not None
        name = placement.instruction.metadata["backend"]
        (chosen,) = (
            each
            for each in self.core.registry.members
            if each.name == name and each.lifecycle is Lifecycle.ACTIVE
        )
        assert chosen.endpoint.address == placement.instruction.address
        assert model is None or chosen.models is None or model in chosen.models
        self.open[chosen].append(placement.lease)
        self.routed.append(placement.instruction)

    @precondition(lambda self: self.open or self.held)
    @rule(pick=PICKS, times=st.integers(1, 2))
    def end(self, pick: int, times: int) -> None:
        booked = [(leases, lease) for leases in self.open.values() for lease in leases]
        waiting = [(self.held, lease) for lease in self.held]
        leases, lease = (booked + waiting)[pick % len(booked + waiting)]
        leases.remove(lease)
        self.forget_the_idle()
        for _ in range(times):
            lease.end(self.now_s)

    @precondition(lambda self: self.routed)
    @rule(pick=PICKS, status=st.sampled_from([0, 200, 404, 500]))
    def learn(self, pick: int, status: int) -> None:
        metadata = self.routed[pick % len(self.routed)].metadata
        self.core.learn(
            LogEntry(0.0, 1.0, status, 1, frozenset(), 0, metadata, {"ttft_us": "300000"}), self.now_s
        )

    @precondition(lambda self: self.open)
    @rule(pick=PICKS, second=NUMBERS, stage=st.sampled_from(RetryStage), was_sent=st.booleans())
    def retry(self, pick: int, second: int, stage: RetryStage, was_sent: bool) -> None:
        """Envoy has tried again elsewhere; names are all that it tells."""
        first = list(self.open)[pick % len(self.open)].name
        one, other = (self.core.registry.backend_named(name) for name in (first, f"vllm-{second}"))
        tags = {STAGE_TAG: stage.value, FIRST_TAG: first, SECOND_TAG: f"vllm-{second}"}
        flags = frozenset[str]() if was_sent else frozenset({"UF"})
        self.core.learn(LogEntry(0.0, 1.0, 200, 1, flags, 0, {}, tags), self.now_s)
        assert one is not None, "a backend with requests in flight is a member"
        if stage is RetryStage.SENT and other not in (None, one) and self.open.get(one):
            assert other is not None
            self.open[other].append(self.open[one].pop())
            self.forget_the_idle()

    def forget_the_idle(self) -> None:
        for backend in [backend for backend, leases in self.open.items() if not leases]:
            del self.open[backend]

    @precondition(lambda self: self.core.registry.members)
    @rule(pick=PICKS, running=st.integers(0, 5), waiting=st.integers(0, 3), total=st.integers(0, 5000))
    def scrape(self, pick: int, running: int, waiting: int, total: int) -> None:
        backend = self.member(pick)
        signals = Signals(running, waiting, prompt_tokens_total=total)
        self.core.scraped(backend, signals, backend.own, self.now_s)

    @precondition(lambda self: self.core.registry.members)
    @rule(pick=PICKS)
    def refuse_a_scrape(self, pick: int) -> None:
        self.member(pick).scrape_refused(self.now_s)

    @rule(
        number=NUMBERS,
        port=PORTS,
        model=st.sampled_from(["m", "m", "n", None]),
        is_known_to_envoy=st.sampled_from([True, True, False]),
    )
    def find(self, number: int, port: int, model: str | None, is_known_to_envoy: bool) -> None:
        """One joins, comes back, or is at another address."""
        endpoint = an_endpoint(number, port=port, model=model)
        self.found[endpoint.name] = endpoint
        self.core.set_members(self.found.values(), self.now_s, [endpoint] if is_known_to_envoy else ())

    @precondition(lambda self: self.found)
    @rule(pick=PICKS)
    def lose(self, pick: int) -> None:
        del self.found[sorted(self.found)[pick % len(self.found)]]
        self.core.set_members(self.found.values(), self.now_s)

    @rule(step_s=st.sampled_from([0.0, 0.1, SETTLE_S, MAX_WAIT_S]))
    def wait(self, step_s: float) -> None:
        self.now_s += step_s
        self.core.advance(self.now_s)
        assert self.core.queue is not None
        self.core.queue.advance(self.now_s)

    def member(self, pick: int) -> Backend:
        return self.core.registry.members[pick % len(self.core.registry.members)]

    @invariant()
    def in_flight_are_the_open_leases(self) -> None:
        members = self.core.registry.members
        assert set(self.open) <= set(members), "a backend leaves only when nothing is in flight there"
        for backend in members:
            assert backend.own + backend.bodyless == len(self.open.get(backend, ()))
            assert len(backend.open) == backend.own + backend.bodyless

    @invariant()
    def a_backend_is_the_server_at_one_address(self) -> None:
        for backend in self.core.registry.members:
            address = backend.endpoint.address
            assert self.addresses.setdefault(backend, address) == address

    @invariant()
    def those_that_wait_are_the_open_leases_in_the_queue(self) -> None:
        assert self.core.queue is not None
        assert self.core.queue.waiting == len(self.held)

    @invariant()
    def members_are_those_found_and_departing_ones(self) -> None:
        staying = [each for each in self.core.registry.members if each.lifecycle is not Lifecycle.DRAINING]
        assert {each.name: each.endpoint for each in staying} == self.found
        assert len(staying) == len(self.found)

    def teardown(self) -> None:
        """End all, and let all leave: nothing is left."""
        while self.open or self.held:
            self.end(0, 1)
            self.in_flight_are_the_open_leases()
        self.core.set_members((), self.now_s)
        self.core.advance(self.now_s + SETTLE_S)
        assert not self.core.registry.members
        assert not len(self.core.fleet.prefixes)
        assert not self.core.feedback.counts.by_result


TestCountedCore = CountedCore.TestCase
TestCountedCore.settings = settings(max_examples=100, stateful_step_count=60)
