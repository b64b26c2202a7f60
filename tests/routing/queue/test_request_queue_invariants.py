"""Whatever happens in whatever order.

No request is lost, answered twice, let in late or overtaken by a peer.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.build import a_request, an_endpoint
from support.held_requests import MAX_ACTIVE, Client, Clinic

from extproc.exchange.messages import Hold
from extproc.routing.queue.queue_rules import QueueRules

MODELS = ("a", "b")
BACKENDS = (
    an_endpoint(1, name="only-a", model="a"),
    an_endpoint(2, name="both", models=frozenset({"a", "b"})),
)
RULES = QueueRules(max_waiting=4, max_wait_s=10.0, max_start_wait_s=0.0, min_priority=-1, max_priority=1)
"""No request waits for a model that has no server: those have another limit, and tests of their own."""

LIMIT_S = 10.0


def peers_of(client: Client, others: list[Client]) -> list[Client]:
    def kind(one: Client) -> tuple[object, ...]:
        return one.request.model, one.request.priority, one.request.tenant

    return [one for one in others if kind(one) == kind(client)]


def due_s(client: Client) -> float:
    """When the time of a held request is over."""
    limit_s = client.request.wait_limit_s
    return client.since_s + min(RULES.max_wait_s, 0.8 * (LIMIT_S if limit_s is None else limit_s))


class AnyEvents(RuleBasedStateMachine):
    """After each step, the requests that it let in are compared with those that still wait."""

    def __init__(self) -> None:
        super().__init__()
        self.clinic = Clinic(RULES, BACKENDS, LIMIT_S)
        self.held: list[Client] = []
        self.is_closed = False

    @rule(
        model=st.sampled_from(MODELS),
        priority=st.integers(-1, 1),
        tenant=st.sampled_from("xy"),
        limit_s=st.sampled_from([None, 0.5, 5.0, 100.0]),
    )
    def arrive(self, model: str, priority: int, tenant: str, limit_s: float | None) -> None:
        self.clinic.arrive(a_request(model, priority=priority, tenant=tenant, wait_limit_s=limit_s))
        self._look()

    @precondition(lambda self: any(client.is_placed for client in self.clinic.clients))
    @rule(data=st.data())
    def response_ends(self, data: st.DataObject) -> None:
        placed = [client for client in self.clinic.clients if client.is_placed]
        self.clinic.leave(data.draw(st.sampled_from(placed)))
        self._look()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        self.clinic.leave(data.draw(st.sampled_from(self.held)))
        self._look()

    @rule(seconds=st.floats(0.0, 6.0))
    def time_passes(self, seconds: float) -> None:
        self.clinic.wait(seconds)
        self._look()

    @rule(seconds=st.floats(0.0, 6.0))
    def the_clock_is_late(self, seconds: float) -> None:
        self.clinic.now_s += seconds

    @rule(data=st.data())
    def backend_fails(self, data: st.DataObject) -> None:
        backend = data.draw(st.sampled_from(self.clinic.core.registry.members))
        backend.breaker.fail(self.clinic.now_s)

    @rule(names=st.sets(st.sampled_from([backend.name for backend in BACKENDS]), min_size=1))
    def fleet_changes(self, names: set[str]) -> None:
        backends = [backend for backend in BACKENDS if backend.name in names]
        self.clinic.core.set_members(backends, self.clinic.now_s, backends)
        self.clinic.core.advance(self.clinic.now_s)
        self.clinic.wait(0.0)
        self._look()

    @rule()
    def sidecar_ends(self) -> None:
        self.clinic.queue.close(self.clinic.now_s)
        self.is_closed = True
        self._look()

    def _look(self) -> None:
        still_held = [client for client in self.clinic.clients if client.is_held]
        for client in self.held:
            if client.is_placed:
                waiting = peers_of(client, still_held)
                assert all(due_s(other) >= due_s(client) for other in waiting), "overtaken by a peer"
        self.held = still_held

    @invariant()
    def no_request_is_lost_or_answered_twice(self) -> None:
        for client in self.clinic.clients:
            assert 1 <= len(client.answers) <= 2
            assert len(client.answers) == 1 or isinstance(client.answers[0], Hold)
            assert not isinstance(client.answers[-1], Hold) or len(client.answers) == 1
        assert self.clinic.queue.waiting == len(self.held)
        assert not (self.is_closed and self.held)

    @invariant()
    def the_bounds_hold(self) -> None:
        assert all(0 < depth <= RULES.max_waiting for depth in self.clinic.queue.depths().values())
        assert sum(self.clinic.queue.depths().values()) == self.clinic.queue.waiting
        assert all(backend.own <= MAX_ACTIVE for backend in self.clinic.core.registry.members)

    @invariant()
    def no_backend_has_room_while_a_request_waits_for_it(self) -> None:
        for client in self.held:
            for backend in self.clinic.core.registry.candidates(client.request.model) or ():
                assert backend.own >= MAX_ACTIVE or backend.breaker.is_tripped

    @invariant()
    def no_request_is_let_in_late(self) -> None:
        for client in self.clinic.clients:
            if len(client.answers) == 2 and client.is_placed:
                assert client.answered_at_s[-1] < due_s(client)

    @invariant()
    def every_ending_is_counted(self) -> None:
        endings = self.clinic.queue.counts.endings
        arrived_and_held = sum(isinstance(client.answers[0], Hold) for client in self.clinic.clients)
        assert sum(endings.values()) - endings["full"] + len(self.held) == arrived_and_held

    def teardown(self) -> None:
        self.clinic.wait(RULES.max_wait_s)
        assert self.clinic.queue.waiting == 0
        assert not any(client.is_held for client in self.clinic.clients)
        for client in self.clinic.clients:
            self.clinic.leave(client)
        assert all(backend.own == 0 for backend in self.clinic.core.registry.members)


TestAnyEvents = AnyEvents.TestCase
