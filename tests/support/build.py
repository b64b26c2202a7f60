"""One place that builds requests, rules, backends and cores for the tests, with keyword defaults.

The defaults are small and round: limits of four requests, breakers that trip at the third failure, model "m".
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from extproc.exchange.placement import HeldLease, Lease
from extproc.fleet.backend import Backend
from extproc.fleet.breaker import BreakerRule
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet import Fleet
from extproc.fleet.fleet_averages import FleetAverages
from extproc.fleet.fleet_rules import FleetRules, SaturationRule, WaitingRule
from extproc.fleet.prediction_record import TrustRule
from extproc.fleet.signals import Signals
from extproc.fleet.view import FleetView
from extproc.learning.model_rules import PredictRule
from extproc.policy.decide import PolicyRules
from extproc.request.api import CHAT
from extproc.request.body_facts import InputSize
from extproc.request.request import Request
from extproc.routing.core import Core, CoreRules
from extproc.routing.queue.queue_rules import QueueRules
from extproc.routing.refusal import AdmissionRules

MODEL = "m"
MAX_ACTIVE, RESUME_LOAD = 4, 2
FAILURES, PAUSE_S, MAX_PAUSE_S, PROBE_TIMEOUT_S = 3, 1.0, 8.0, 5.0
STALE_AFTER_S, LOW_S = 2.0, 1.0


def a_request(model: str | None = MODEL, **changes: Any) -> Request:
    """A chat of 100 tokens; `changes` are fields of `Request`."""
    fields: dict[str, Any] = {
        "api": CHAT,
        "path": CHAT.path,
        "model": model,
        "is_stream": True,
        "input_size": InputSize(text_bytes=400),
        "input_tokens": 100,
        "token_limit": None,
        "priority": 0,
        "body_bytes": 500,
        "has_body": True,
    }
    return Request(**fields | changes)


def an_endpoint(number: int = 1, *, model: str | None = MODEL, **changes: Any) -> Endpoint:
    """`vllm-NUMBER` at 127.0.0.1:NUMBER, which serves `model`; None where it has to be asked."""
    models = None if model is None else frozenset({model})
    return Endpoint(
        **{"name": f"vllm-{number}", "host": "127.0.0.1", "port": number, "models": models} | changes
    )


def endpoints(count: int, *, model: str | None = MODEL) -> tuple[Endpoint, ...]:
    return tuple(an_endpoint(number, model=model) for number in range(1, count + 1))


def breaker_rule(
    failures: int = FAILURES,
    min_pause_s: float = PAUSE_S,
    max_pause_s: float = MAX_PAUSE_S,
    probe_timeout_s: float = PROBE_TIMEOUT_S,
) -> BreakerRule:
    return BreakerRule(failures, min_pause_s, max_pause_s, probe_timeout_s)


def trust_rule(min_outcomes: int = 8) -> TrustRule:
    return TrustRule(min_outcomes)


def fleet_rules(
    *,
    max_active: int = MAX_ACTIVE,
    resume_load: int | None = None,
    saturation: SaturationRule | None = None,
    breaker: BreakerRule | None = None,
    stale_after_s: float = STALE_AFTER_S,
    low_s: float = LOW_S,
    trust: TrustRule | None = None,
    waiting: WaitingRule | None = None,
) -> FleetRules:
    """A backend comes back at half its limit, unless `resume_load` says otherwise."""
    resume = max_active // 2 if resume_load is None else resume_load
    return FleetRules(
        saturation=saturation or SaturationRule(max_active, resume),
        breaker=breaker or breaker_rule(),
        stale_after_s=stale_after_s,
        low_s=low_s,
        trust=trust or trust_rule(),
        waiting=waiting or WaitingRule(),
    )


def policy_rules(
    *,
    is_predict_enabled: bool = True,
    low_s: float = LOW_S,
    max_predicted_ttft_s: float = 5.0,
    max_candidates: int = 16,
    score: str = "expected_wait",
) -> PolicyRules:
    predict = PredictRule(is_enabled=is_predict_enabled, max_candidates=max_candidates)
    return PolicyRules(predict, low_s, max_predicted_ttft_s, score)


def core_rules(
    fleet: FleetRules | None = None,
    *,
    policy: PolicyRules | None = None,
    queue: QueueRules | None = None,
    max_retry_after_s: int = 60,
    settle_s: float = 0.0,
    has_replicas: bool = False,
) -> CoreRules:
    return CoreRules(
        fleet=fleet or fleet_rules(),
        policy=policy or policy_rules(),
        admission=AdmissionRules(max_retry_after_s),
        queue=queue,
        settle_s=settle_s,
        has_replicas=has_replicas,
    )


def a_core(
    members: Iterable[Endpoint] = (), rules: CoreRules | None = None, *, now_s: float = 0.0, seed: int = 0
) -> Core:
    """A core whose `members` are active at once."""
    core = Core(rules or core_rules(), np.random.default_rng(seed))
    found = tuple(members)
    core.set_members(found, now_s, found)
    return core


def a_fleet(count: int = 1, rules: FleetRules | None = None) -> Fleet:
    """A fleet of `count` active backends, named `vllm-1` and so on."""
    fleet = Fleet(rules or fleet_rules())
    for endpoint in endpoints(count):
        fleet.join(endpoint)
    return fleet


def a_backend(rules: FleetRules | None = None, **changes: Any) -> Backend:
    """A backend of its own, in no fleet; `changes` are fields of its `Endpoint`."""
    used = rules or fleet_rules()
    return Backend(an_endpoint(**changes), used, FleetAverages())


def reserve(backend: Backend, count: int, now_s: float) -> None:
    for _ in range(count):
        backend.reserve(now_s)


def scrape(
    backend: Backend,
    running: float = 0.0,
    waiting: float = 0.0,
    *,
    own_when_asked: int | None = None,
    now_s: float,
    **counters: Any,
) -> None:
    """A scrape that shows these gauges; by default it was sent with what is in flight now."""
    own = backend.own if own_when_asked is None else own_when_asked
    backend.scraped(Signals(running=running, waiting=waiting, **counters), own, now_s)


def view_of(backends: Sequence[Backend], now_s: float, stale_after_s: float = STALE_AFTER_S) -> FleetView:
    settle(backends)
    return FleetView(backends, now_s, now_s - stale_after_s)


def settle(backends: Iterable[Backend]) -> None:
    """Have backends whose fields a test has set keep what follows from these."""
    for backend in backends:
        backend.load = backend.own + backend.foreign
        backend.expect_next(backend.load)


class CountedLease(Lease):
    """A lease that reports its end."""

    def __init__(self, released: Callable[[float], None]) -> None:
        super().__init__()
        self._released = released

    def _release(self, now_s: float) -> None:
        self._released(now_s)


class CountedHeldLease(HeldLease):
    """A held request's lease that reports its end."""

    def __init__(self, released: Callable[[float], None]) -> None:
        super().__init__()
        self._released = released

    def _release(self, now_s: float) -> None:
        self._released(now_s)
