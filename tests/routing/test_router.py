import json

import numpy as np
import pytest
from extproc.policy.policy_rules import PolicyRules
from extproc.request.token_learning import TokenLearning
from msgspec.structs import replace

from extproc.exchange.messages import Continue, Phase, Reject, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.breaker import BreakerRule
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet import CAPACITY, Fleet, FleetRules
from extproc.fleet.prediction_record import TrackRecord, TrustRule
from extproc.fleet.registry import Registry
from extproc.fleet.saturation import SaturationRule
from extproc.fleet.signals import Signals
from extproc.learning.model_in_use import ModelSlot
from extproc.outcomes.facts import from_metadata, to_metadata
from extproc.outcomes.log_entry import LogEntry
from extproc.request.api import CHAT
from extproc.request.body_facts import InputSize
from extproc.request.request import Request
from extproc.request.token_ratio import TokenRatios
from extproc.routing.feedback import Feedback
from extproc.routing.refusal import AdmissionRules
from extproc.routing.router import Router, RouterRules

BACKENDS = [Endpoint(f"vllm-{i}", "127.0.0.1", 8100 + i, frozenset({"m"})) for i in (1, 2)]


class Core:
    """The core as `app.py` wires it, without I/O; every backend holds at most two requests."""

    def __init__(self, *, is_known_to_envoy: bool = True) -> None:
        self.fleet = Fleet(FleetRules(SaturationRule(2, 1), BreakerRule(3, 1.0, 8.0, 5.0), 2.0, 1.0, 16.0))
        self.registry = Registry(self.fleet, settle_s=1.5)
        self.registry.apply(BACKENDS, 0.0, BACKENDS if is_known_to_envoy else ())
        self.ratios = TokenRatios()
        record, tokens = TrackRecord(CAPACITY, TrustRule(2.0, 0.2, 8)), TokenLearning(self.ratios)
        self.tokens = tokens
        rules = RouterRules(PolicyRules(True, 5.0, 0.05, 16), AdmissionRules(60))
        rng = np.random.default_rng(0)
        self.router = Router(self.fleet, self.registry, ModelSlot(), record, tokens, rules, rng)
        self.feedback = Feedback(self.fleet, self.registry, record, tokens, self.router.bookings)

    def place(
        self,
        model: str | None = "m",
        now_s: float = 1.0,
        text_bytes: int = 400,
        prefix: tuple[int, ...] = (),
    ) -> Placement:
        size = InputSize(text_bytes=text_bytes)
        request = Request(
            api=CHAT,
            path=CHAT.path,
            model=model,
            is_stream=True,
            input_size=size,
            input_tokens=100,
            token_limit=50,
            priority=0,
            body_bytes=500,
            has_body=True,
            prefix=prefix,
            prompt_bytes=2048,
        )
        return self.router.place(request, Phase.REQUEST_BODY, now_s)


@pytest.fixture
def core() -> Core:
    return Core()


def total_own(core: Core) -> int:
    return sum(state.own for state in core.fleet.states)


def test_a_placed_request_holds_a_slot_until_its_lease_ends(core: Core) -> None:
    placement = core.place()
    assert total_own(core) == 1
    assert placement.lease is not None
    placement.lease.end(2.0)
    placement.lease.end(3.0)
    assert total_own(core) == 0


def test_the_instruction_carries_what_was_known_at_the_decision(core: Core) -> None:
    core.place()
    instruction = core.place().instruction
    assert isinstance(instruction, RouteTo)
    facts = from_metadata(instruction.metadata)
    assert facts is not None
    assert facts.backend == instruction.cluster
    assert (facts.layer, facts.reason, facts.zone) == ("least_load", "low_zone", "low")
    assert (facts.load, facts.input_tokens, facts.token_limit) == (0.0, 100, 50)


def test_a_burst_never_overshoots_the_limit(core: Core) -> None:
    placements = [core.place() for _ in range(20)]
    assert max(state.own for state in core.fleet.states) == 2
    refused = [placement for placement in placements if isinstance(placement.instruction, Reject)]
    assert len(refused) == 16
    assert core.router.counts.by_layer() == {"guard": 17, "predict": 0, "least_load": 4, "reject": 16}


def test_a_refusal_says_when_to_come_back_in_openais_form(core: Core) -> None:
    for second in range(0, 100, 2):  # each backend ends a request every two seconds
        for backend in BACKENDS:
            slot = core.registry.slot_of(backend.name)
            assert slot is not None
            core.fleet.reserve(slot, second)
            core.fleet.release(slot, second)
    refusal = [core.place(now_s=100.0) for _ in range(5)][-1].instruction
    assert isinstance(refusal, Reject)
    assert refusal.status == 503
    assert refusal.headers["retry-after"] == "3"  # one of two has to go: 2 s, and what has decayed since
    error = json.loads(refusal.body)["error"]
    assert (error["type"], error["code"]) == ("overloaded_error", 503)
    assert (refusal.headers["x-extproc-layer"], refusal.headers["x-extproc-reason"]) == (
        "reject",
        "saturated",
    )


def test_service_resumes_when_requests_end(core: Core) -> None:
    placements = [core.place() for _ in range(5)]
    for placement in placements:
        if placement.lease:
            placement.lease.end(2.0)
    assert isinstance(core.place(now_s=2.0).instruction, RouteTo)


def test_a_model_that_nobody_serves_is_a_404(core: Core) -> None:
    refusal = core.place(model="z" * 500).instruction
    assert isinstance(refusal, Reject)
    assert refusal.status == 404
    assert json.loads(refusal.body)["error"]["type"] == "NotFoundError"
    assert len(refusal.body) < 400


def test_a_request_without_a_model_is_forwarded(core: Core) -> None:
    assert isinstance(core.place(model=None).instruction, RouteTo)


def test_while_nobody_can_be_chosen_yet_envoys_pool_takes_the_request() -> None:
    core = Core(is_known_to_envoy=False)
    placement = core.place()
    assert placement == Placement(Continue(Phase.REQUEST_BODY))
    assert core.router.counts.passed_through == 1


def entry(core: Core, backend: str, status: int, **tags: str) -> LogEntry:
    placement = core.place(now_s=0.0)
    assert isinstance(placement.instruction, RouteTo)
    assert placement.lease is not None
    placement.lease.end(0.0)
    facts = from_metadata(placement.instruction.metadata)
    assert facts is not None
    metadata = to_metadata(replace(facts, backend=backend))
    return LogEntry(0.0, 1.0, status, 1, frozenset(), 0, metadata, tags)


def test_a_backend_that_keeps_failing_is_avoided_and_then_probed_by_one_request(core: Core) -> None:
    for _ in range(3):
        core.feedback.learn(entry(core, "vllm-1", 500), 1.0)
    instructions = [core.place(now_s=1.5).instruction for _ in range(2)]
    assert [i.cluster for i in instructions if isinstance(i, RouteTo)] == ["vllm-2", "vllm-2"]
    assert isinstance(core.place(now_s=1.9).instruction, Reject)
    probe = core.place(now_s=2.5).instruction
    assert isinstance(probe, RouteTo)
    assert probe.cluster == "vllm-1"
    assert isinstance(core.place(now_s=2.5).instruction, Reject), "one probe at a time"


def test_4xx_never_takes_a_backend_out(core: Core) -> None:
    for _ in range(50):
        core.feedback.learn(entry(core, "vllm-1", 400), 1.0)
    assert {core.place().instruction.cluster for _ in range(2)} == {"vllm-1", "vllm-2"}  # type: ignore[union-attr]


def test_an_observed_ttft_reaches_the_fleet(core: Core) -> None:
    core.feedback.learn(entry(core, "vllm-1", 200, ttft_us="300000"), 1.0)
    slot = core.registry.slot_of("vllm-1")
    assert slot is not None
    assert core.fleet.states[slot].observed_ttft_s == pytest.approx(0.3)
    assert core.feedback.counts.by_result["vllm-1", "ok"] == 1


def test_an_outcome_of_a_backend_that_has_left_harms_nobody(core: Core) -> None:
    outcome = core.feedback.learn(entry(core, "gone", 500), 1.0)
    assert outcome is not None
    assert core.feedback.counts.by_result == {}


def test_tokens_per_byte_are_learned_from_the_servers_counter(core: Core) -> None:
    slot, total = core.registry.slot_of("vllm-1"), 1000.0
    assert slot is not None
    core.tokens.scraped(slot, total, 0.0)
    for step in range(200):
        placement = core.place(now_s=float(step))
        assert isinstance(placement.instruction, RouteTo)
        assert placement.lease is not None
        placement.lease.end(step + 0.5)
        total += 200.0 if placement.instruction.cluster == "vllm-1" else 0.0
        core.tokens.scraped(slot, total, 0.0)
    assert core.ratios.tokens_per_byte("m") == pytest.approx(0.5, rel=0.1)


def test_strangers_at_the_backend_count_for_the_guard(core: Core) -> None:
    slot = core.registry.slot_of("vllm-1")
    assert slot is not None
    core.fleet.scraped(slot, Signals(running=2, waiting=0), own_when_asked=0, now_s=1.0)
    clusters = {core.place(now_s=1.1).instruction.cluster for _ in range(2)}  # type: ignore[union-attr]
    assert clusters == {"vllm-2"}


def retry(stage: str, *flags: str, status: int = 0) -> LogEntry:
    tags = {"retry_stage": stage, "retry_first": "vllm-1", "retry_second": "vllm-2"}
    return LogEntry(0.0, None, status, 1, frozenset(flags), 0, {}, tags)


def test_a_second_attempt_is_booked_where_it_is_and_blames_the_first_choice_once(core: Core) -> None:
    placements = {placement.instruction.cluster: placement for placement in (core.place(), core.place())}  # type: ignore[union-attr]
    one, two = core.fleet.states[:2] if core.registry.name_of(0) == "vllm-1" else core.fleet.states[1::-1]
    for _ in range(3):
        assert core.feedback.learn(retry("UpstreamPoolReady"), 1.1) is None
    assert (one.own, two.own) == (0, 2), "only one was booked there"
    assert core.fleet.breakers.is_tripped(one.slot)
    core.feedback.learn(retry("UpstreamEnd", status=200), 1.2)
    for placement in placements.values():
        assert placement.lease is not None
        placement.lease.end(1.3)
    assert (one.own, two.own) == (0, 0)
    core.fleet.breakers.reset(one.slot)
    late = replace(entry(core, "vllm-1", 200, ttft_us="300000"), attempts=2)
    for _ in range(5):
        core.feedback.learn(late, 9.0)
    assert not core.fleet.breakers.is_tripped(one.slot), "it was told of when it happened"
    assert core.fleet.states[one.slot].observed_ttft_s != core.fleet.states[one.slot].observed_ttft_s
    assert (core.router.bookings.retries, core.feedback.counts.unplaced) == (3, 0)


def test_a_second_attempt_that_fails_blames_both(core: Core) -> None:
    for _ in range(3):
        core.feedback.learn(retry("UpstreamEnd", "UF"), 1.0)
    slots = [core.registry.slot_of(name) for name in ("vllm-1", "vllm-2")]
    assert all(core.fleet.breakers.is_tripped(slot) for slot in slots if slot is not None)


def test_without_a_budget_a_request_is_placed_without_a_second_attempt(core: Core) -> None:
    for _ in range(100):
        core.router.bookings.retried()
    instruction = core.place().instruction
    assert isinstance(instruction, RouteTo)
    assert instruction.cluster in {"vllm-1_endpoint", "vllm-2_endpoint"}


def turn(core: Core, chain: tuple[int, ...], now_s: float = 1.0) -> tuple[str, Placement]:
    """Where a turn of a conversation goes."""
    placement = core.place(prefix=chain, now_s=now_s)
    assert isinstance(placement.instruction, RouteTo)
    return placement.instruction.cluster, placement


def end(placement: Placement, now_s: float = 1.0) -> None:
    assert placement.lease is not None
    placement.lease.end(now_s)


def test_the_turns_of_a_conversation_go_where_its_beginning_is(core: Core) -> None:
    for conversation in range(1, 20):
        backends = set()
        for blocks in (1, 2, 3, 4):
            chain = tuple(100 * conversation + n for n in range(blocks))
            backend, placement = turn(core, chain, now_s=10.0 * conversation + blocks)
            backends.add(backend)
            end(placement)
        assert len(backends) == 1


def test_a_conversation_leaves_a_backend_that_is_crowded(core: Core) -> None:
    backend, placement = turn(core, (1, 2, 3))
    end(placement)
    slot = core.registry.slot_of(backend)
    assert slot is not None
    core.fleet.states[slot].places = 1
    assert turn(core, (1, 2, 3, 4), now_s=2.0)[0] == backend
    assert turn(core, (1, 2, 3, 5), now_s=3.0)[0] != backend, "its only place is taken"


def test_what_is_expected_in_the_cache_is_not_taken_for_work(core: Core) -> None:
    backend, placement = turn(core, (1, 2, 3))
    slot = core.registry.slot_of(backend)
    assert slot is not None
    state = core.fleet.states[slot]
    whole_s = state.prefilled_at_s - 1.0
    end(placement)
    placement = turn(core, (1, 2, 3), now_s=5.0)[1]
    assert state.prefilled_at_s - 5.0 == pytest.approx(whole_s / 4)
    assert core.router.counts.expected_cached_tokens == pytest.approx(75.0)
    assert isinstance(placement.instruction, RouteTo)
    log = LogEntry(0.0, 1.0, 200, 1, frozenset(), 0, placement.instruction.metadata, {"ttft_us": "300000"})
    outcome = core.feedback.learn(log, 6.0)
    assert outcome is not None
    assert (outcome.sample.input_tokens, outcome.new_tokens) == (100.0, pytest.approx(25.0))


def test_a_second_attempt_takes_its_prompt_along(core: Core) -> None:
    first, _ = turn(core, (1, 2, 3))
    other = next(backend.name for backend in BACKENDS if backend.name != first)
    slots = {name: core.registry.slot_of(name) for name in (first, other)}
    assert slots[first] is not None
    assert slots[other] is not None
    core.router.bookings.move(slots[first], slots[other], 1.0)
    assert core.fleet.prefixes.blocks_at((1, 2, 3))[slots[other]] == 3
