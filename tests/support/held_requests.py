"""A waiting room before a real router, without I/O, and clients whose requests may be held."""

from collections.abc import Sequence

import numpy as np
from extproc.policy.policy_rules import PolicyRules
from extproc.request.token_learning import TokenLearning

from extproc.exchange.messages import Continue, Hold, Instruction, Phase, Reject, RouteTo
from extproc.exchange.placement import Lease, Placement
from extproc.fleet.breaker import BreakerRule
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet import CAPACITY, Fleet, FleetRules
from extproc.fleet.prediction_record import TrackRecord, TrustRule
from extproc.fleet.registry import Registry
from extproc.fleet.saturation import SaturationRule
from extproc.learning.model_in_use import ModelSlot
from extproc.request.api import CHAT
from extproc.request.body_facts import InputSize
from extproc.request.request import Request
from extproc.request.token_ratio import TokenRatios
from extproc.routing.queue.request_queue import QueueRules, RequestQueue
from extproc.routing.refusal import AdmissionRules
from extproc.routing.router import Router, RouterRules

MAX_ACTIVE = 2
FAILURES = 3
RULES = QueueRules(max_waiting=100, max_wait_s=10.0, min_priority=-5, max_priority=5)
ONE = (Endpoint("vllm-1", "127.0.0.1", 1, frozenset({"m"})),)


def request(
    model: str | None = "m", priority: int = 0, tenant: str = "", *, has_body: bool = True
) -> Request:
    return Request(
        api=CHAT,
        path=CHAT.path,
        model=model,
        is_stream=True,
        input_size=InputSize(text_bytes=400),
        input_tokens=100,
        token_limit=None,
        priority=priority,
        body_bytes=500,
        has_body=has_body,
        tenant=tenant,
    )


class Client:
    """One request, and what it was answered; `answers` has Hold only where that was the first."""

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
    """The room, and its clients in the order in which they came. Time is `now_s`."""

    def __init__(self, rules: QueueRules = RULES, backends: Sequence[Endpoint] = ONE) -> None:
        self.now_s = 100.0
        saturation = SaturationRule(MAX_ACTIVE, MAX_ACTIVE - 1)
        self.fleet = Fleet(FleetRules(saturation, BreakerRule(FAILURES, 1.0, 8.0, 5.0), 2.0, 1.0, 16.0))
        self.registry = Registry(self.fleet, settle_s=0.0)
        self.registry.apply(backends, 0.0, backends)
        record, tokens = TrackRecord(CAPACITY, TrustRule(2.0, 0.2, 8)), TokenLearning(TokenRatios())
        self.models = ModelSlot()
        self.record = record
        router_rules = RouterRules(PolicyRules(True, 5.0, 0.05, 16), AdmissionRules(60))
        rng = np.random.default_rng(0)
        self.router = Router(self.fleet, self.registry, self.models, record, tokens, router_rules, rng)
        self.room = RequestQueue(self.router, self.registry, rules)
        self.clients: list[Client] = []

    def arrive(self, asked: Request | None = None) -> Client:
        client = Client(asked or request(), self.now_s)
        self.clients.append(client)
        self._take(client, self.room.place(client.request, Phase.REQUEST_BODY, self.now_s))
        return client

    def leave(self, client: Client) -> None:
        """The response has ended, or the client has gone: the exchange ends."""
        client.has_left = True
        if client.lease is not None:
            client.lease.end(self.now_s)

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.room.advance(self.now_s)

    def fill(self) -> list[Client]:
        """Take every place."""
        placed = [self.arrive() for _ in range(MAX_ACTIVE * len(self.registry.members))]
        assert all(client.is_placed for client in placed)
        return placed

    def slot(self, name: str = "vllm-1") -> int:
        slot = self.registry.slot_of(name)
        assert slot is not None
        return slot

    def own(self, name: str = "vllm-1") -> int:
        return self.fleet.states[self.slot(name)].own

    def _take(self, client: Client, placement: Placement) -> None:
        client.answers.append(placement.instruction)
        client.answered_at_s.append(self.now_s)
        client.lease = placement.lease
        if placement.ticket is not None:
            placement.ticket.tell = lambda later: self._take(client, later)
