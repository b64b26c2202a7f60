"""A core with a queue, without I/O, and clients whose requests may be held."""

from collections.abc import Sequence

from support.build import a_core, a_request, an_endpoint, core_rules, fleet_rules, policy_rules

from extproc.exchange.messages import Continue, Hold, Instruction, Phase, Reject, RouteTo
from extproc.exchange.placement import HeldLease, Lease, Placement
from extproc.fleet.backend import Backend
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet_rules import WaitingRule
from extproc.request.request import Request
from extproc.routing.queue.queue_rules import QueueRules

MAX_ACTIVE = 2
RULES = QueueRules(max_waiting=100, max_wait_s=10.0, min_priority=-5, max_priority=5)
ONE = (an_endpoint(1),)


class Client:
    """One request, and its answers; `answers` has Hold only where that was the first."""

    def __init__(self, asked: Request, at_s: float) -> None:
        self.request = asked
        self.since_s = at_s
        self.answers: list[Instruction] = []
        self.answered_at_s: list[float] = []
        self.lease: Lease | None = None
        self.has_left = False

    @property
    def is_held(self) -> bool:
        return not self.has_left and isinstance(self.answers[-1], Hold)

    @property
    def is_placed(self) -> bool:
        return not self.has_left and isinstance(self.answers[-1], RouteTo)

    @property
    def is_passed_through(self) -> bool:
        return isinstance(self.answers[-1], Continue)

    @property
    def refusal(self) -> str | None:
        """The reason, if it was refused."""
        last = self.answers[-1]
        return last.headers["x-extproc-reason"] if isinstance(last, Reject) else None


class Clinic:
    """A core whose queue holds requests, and its clients in the order in which they came. Time is `now_s`.

    The guard's limit of the wait, over both waits, is `limit_s`.
    """

    def __init__(
        self, rules: QueueRules = RULES, backends: Sequence[Endpoint] = ONE, limit_s: float = 60.0
    ) -> None:
        self.now_s = 100.0
        fleet = fleet_rules(max_active=MAX_ACTIVE, waiting=WaitingRule(limit_s))
        policy = policy_rules(max_predicted_ttft_s=limit_s)
        self.core = a_core(backends, core_rules(fleet, policy=policy, queue=rules))
        assert self.core.queue is not None
        self.queue = self.core.queue
        self.clients: list[Client] = []

    def arrive(self, asked: Request | None = None) -> Client:
        client = Client(asked or a_request(), self.now_s)
        self.clients.append(client)
        self._take(client, self.core.place(client.request, Phase.REQUEST_BODY, self.now_s))
        return client

    def leave(self, client: Client) -> None:
        """The response has ended, or the client has gone: the exchange ends."""
        client.has_left = True
        if client.lease is not None:
            client.lease.end(self.now_s)

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.queue.advance(self.now_s)

    def fill(self) -> list[Client]:
        """Fill every backend."""
        placed = [self.arrive() for _ in range(MAX_ACTIVE * len(self.core.registry.members))]
        assert all(client.is_placed for client in placed)
        return placed

    def backend(self, name: str = "vllm-1") -> Backend:
        backend = self.core.registry.backend_named(name)
        assert backend is not None
        return backend

    def own(self, name: str = "vllm-1") -> int:
        return self.backend(name).own

    def _take(self, client: Client, placement: Placement) -> None:
        client.answers.append(placement.instruction)
        client.answered_at_s.append(self.now_s)
        client.lease = placement.lease
        if isinstance(placement.lease, HeldLease):
            placement.lease.respond = lambda later: self._take(client, later)
