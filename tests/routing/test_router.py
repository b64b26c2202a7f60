import json
from math import isnan

import pytest
from msgspec.structs import replace
from support.build import a_core, a_request, core_rules, endpoints, fleet_rules, scrape

from extproc.exchange.messages import Continue, Phase, Reject, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.backend import Backend
from extproc.fleet.signals import Signals
from extproc.outcomes.facts import from_metadata, to_metadata
from extproc.outcomes.outcome import LogEntry
from extproc.request.body_facts import InputSize
from extproc.routing.core import Core

BACKENDS = endpoints(2)
RULES = core_rules(fleet_rules(max_active=2), settle_s=1.5)
NAMES = {endpoint.name for endpoint in BACKENDS}


def place(
    core: Core,
    model: str | None = "m",
    now_s: float = 1.0,
    text_bytes: int = 400,
    prefix: tuple[int, ...] = (),
) -> Placement:
    asked = a_request(
        model, input_size=InputSize(text_bytes), token_limit=50, prefix=prefix, prompt_bytes=2048
    )
    return core.place(asked, Phase.REQUEST_BODY, now_s)


@pytest.fixture
def core() -> Core:
    """Two backends, each of which holds at most two requests."""
    return a_core(BACKENDS, RULES)


def total_own(core: Core) -> int:
    return sum(backend.own for backend in core.registry.members)


def backend_named(core: Core, name: str) -> Backend:
    backend = core.registry.backend_named(name)
    assert backend is not None
    return backend


def routed(placement: Placement) -> RouteTo:
    assert isinstance(placement.instruction, RouteTo)
    return placement.instruction


def end(placement: Placement, now_s: float = 1.0) -> None:
    assert placement.lease is not None
    placement.lease.end(now_s)


def test_a_placed_request_counts_until_its_lease_ends(core: Core) -> None:
    placement = place(core)
    assert total_own(core) == 1
    assert placement.lease is not None
    placement.lease.end(2.0)
    placement.lease.end(3.0)
    assert total_own(core) == 0


def test_the_instruction_carries_what_was_known_at_the_decision(core: Core) -> None:
    place(core)
    instruction = place(core).instruction
    assert isinstance(instruction, RouteTo)
    facts = from_metadata(instruction.metadata)
    assert facts is not None
    assert facts.backend == instruction.cluster
    assert (facts.layer, facts.reason, facts.zone) == ("least_load", "low_zone", "low")
    assert (facts.load, facts.input_tokens, facts.token_limit) == (0.0, 100, 50)


def test_a_burst_never_overshoots_the_limit(core: Core) -> None:
    placements = [place(core) for _ in range(20)]
    assert max(backend.own for backend in core.registry.members) == 2
    refused = [placement for placement in placements if isinstance(placement.instruction, Reject)]
    assert len(refused) == 16
    assert core.router.counts.by_layer() == {"guard": 17, "predict": 0, "least_load": 4, "reject": 16}


def test_a_refusal_says_when_to_come_back_in_openais_form(core: Core) -> None:
    for second in range(0, 100, 2):  # each backend ends a request every two seconds
        for backend in core.registry.members:
            backend.reserve(second)
            backend.release(second)
    refusal = [place(core, now_s=100.0) for _ in range(5)][-1].instruction
    assert isinstance(refusal, Reject)
    assert refusal.status == 503
    assert 1 <= int(refusal.headers["retry-after"]) <= 4
    error = json.loads(refusal.body)["error"]
    assert (error["type"], error["code"]) == ("overloaded_error", 503)
    assert (refusal.headers["x-extproc-layer"], refusal.headers["x-extproc-reason"]) == (
        "reject",
        "saturated",
    )


def test_service_resumes_when_requests_end(core: Core) -> None:
    placements = [place(core) for _ in range(5)]
    for placement in placements:
        if placement.lease:
            placement.lease.end(2.0)
    assert isinstance(place(core, now_s=2.0).instruction, RouteTo)


def test_a_model_that_no_backend_serves_is_a_404(core: Core) -> None:
    refusal = place(core, model="z" * 500).instruction
    assert isinstance(refusal, Reject)
    assert refusal.status == 404
    assert json.loads(refusal.body)["error"]["type"] == "NotFoundError"
    assert len(refusal.body) < 400


def without_a_body(core: Core) -> Placement:
    return core.place(a_request(None, has_body=False, input_tokens=0), Phase.REQUEST_HEADERS, 1.0)


def test_requests_without_a_body_have_a_limit_of_their_own_and_take_no_places(core: Core) -> None:
    placements = [without_a_body(core) for _ in range(20)]
    assert [backend.bodyless for backend in core.registry.members] == [2, 2]
    refused = [placement for placement in placements if isinstance(placement.instruction, Reject)]
    assert {each.instruction.headers["x-extproc-reason"] for each in refused} == {"saturated"}
    assert total_own(core) == 0
    assert isinstance(place(core).instruction, RouteTo), "they keep no chat out"
    for placement in placements:
        if placement.lease is not None:
            placement.lease.end(2.0)
    assert [backend.bodyless for backend in core.registry.members] == [0, 0]


def test_full_backends_answer_requests_without_a_body(core: Core) -> None:
    for _ in range(10):
        place(core)
    assert isinstance(without_a_body(core).instruction, RouteTo)


def test_a_request_without_a_model_is_forwarded(core: Core) -> None:
    assert isinstance(place(core, model=None).instruction, RouteTo)


def test_while_no_backend_can_be_chosen_yet_envoys_pool_takes_the_request() -> None:
    core = a_core(rules=RULES)
    core.set_members(BACKENDS, 0.0)
    placement = place(core)
    assert placement == Placement(Continue(Phase.REQUEST_BODY))
    assert core.router.counts.passed_through == 1


def entry(core: Core, backend: str, status: int, **tags: str) -> LogEntry:
    placement = place(core, now_s=0.0)
    end(placement, 0.0)
    facts = from_metadata(routed(placement).metadata)
    assert facts is not None
    metadata = to_metadata(replace(facts, backend=backend))
    return LogEntry(0.0, 1.0, status, 1, frozenset(), 0, metadata, tags)


def test_a_backend_that_keeps_failing_is_avoided_and_then_probed_by_one_request(core: Core) -> None:
    for _ in range(3):
        core.learn(entry(core, "vllm-1", 500), 1.0)
    instructions = [place(core, now_s=1.5).instruction for _ in range(2)]
    assert [each.cluster for each in instructions if isinstance(each, RouteTo)] == ["vllm-2", "vllm-2"]
    assert isinstance(place(core, now_s=1.9).instruction, Reject)
    assert routed(place(core, now_s=2.5)).cluster == "vllm-1"
    assert isinstance(place(core, now_s=2.5).instruction, Reject), "one probe at a time"


def test_4xx_never_takes_a_backend_out(core: Core) -> None:
    for _ in range(50):
        core.learn(entry(core, "vllm-1", 400), 1.0)
    assert {routed(place(core)).cluster for _ in range(2)} == {"vllm-1", "vllm-2"}


def test_a_429_has_others_take_the_requests_and_is_no_failure(core: Core) -> None:
    for _ in range(50):
        core.learn(entry(core, "vllm-1", 429), 1.0)
    assert routed(place(core, now_s=1.5)).cluster == "vllm-2"
    assert not backend_named(core, "vllm-1").breaker.is_tripped
    assert core.feedback.counts.by_result["vllm-1", "overloaded"] == 50


def test_a_404_for_a_model_that_it_lists_has_a_backend_asked_again_and_avoided(core: Core) -> None:
    core.learn(entry(core, "vllm-1", 404), 1.0)
    assert backend_named(core, "vllm-1").is_list_doubted
    assert routed(place(core, now_s=1.5)).cluster == "vllm-2"


def test_a_404_that_every_backend_gives_keeps_requests_from_none(core: Core) -> None:
    core.learn(entry(core, "vllm-1", 404), 1.0)
    for now_s in (1.1, 1.2, 3.0, 4.0):
        for name in ("vllm-1", "vllm-2"):
            core.learn(entry(core, name, 404), now_s)
    assert {routed(place(core, now_s=4.1)).cluster for _ in range(2)} == {"vllm-1", "vllm-2"}
    assert not backend_named(core, "vllm-2").is_pausing(1.3)


def test_a_404_for_a_model_that_it_does_not_list_says_nothing_of_a_backend(core: Core) -> None:
    backend_named(core, "vllm-1").models = frozenset({"another"})
    core.learn(entry(core, "vllm-1", 404), 1.0)
    assert not backend_named(core, "vllm-1").is_list_doubted


def test_an_observed_ttft_reaches_its_backend(core: Core) -> None:
    core.learn(entry(core, "vllm-1", 200, ttft_us="300000"), 1.0)
    assert backend_named(core, "vllm-1").observed_ttft_s == pytest.approx(0.3)
    assert core.feedback.counts.by_result["vllm-1", "ok"] == 1


def test_a_client_that_holds_its_request_back_teaches_nothing_of_the_server(core: Core) -> None:
    for _ in range(40):
        held_back = entry(core, "vllm-1", 200, ttft_us="300000", decode_us="2000000")
        core.learn(replace(held_back, duration_s=17.3), 1.0)
    assert backend_named(core, "vllm-1").pace.stay_s == pytest.approx(2.0, rel=0.05)


def test_an_outcome_of_a_backend_that_has_left_is_not_counted(core: Core) -> None:
    outcome = core.learn(entry(core, "gone", 500), 1.0)
    assert outcome is not None
    assert core.feedback.counts.by_result == {}


def test_tokens_per_byte_are_learned_from_the_servers_counter(core: Core) -> None:
    backend, total = backend_named(core, "vllm-1"), 1000.0
    core.scraped(backend, Signals(0, 0, prompt_tokens_total=total), 0, 0.0)
    for step in range(200):
        placement = place(core, now_s=float(step))
        end(placement, step + 0.5)
        total += 200.0 if routed(placement).cluster == "vllm-1" else 0.0
        core.scraped(backend, Signals(0, 0, prompt_tokens_total=total), 0, step + 0.6)
    assert core.ratios.tokens_per_byte("m") == pytest.approx(0.5, rel=0.1)


def test_foreign_requests_at_a_backend_count_for_the_guard(core: Core) -> None:
    scrape(backend_named(core, "vllm-1"), 2, own_when_asked=0, now_s=1.0)
    clusters = {routed(place(core, now_s=1.1)).cluster for _ in range(2)}
    assert clusters == {"vllm-2"}


def retry(stage: str, *flags: str, status: int = 0) -> LogEntry:
    tags = {"retry_stage": stage, "retry_first": "vllm-1", "retry_second": "vllm-2"}
    return LogEntry(0.0, None, status, 1, frozenset(flags), 0, {}, tags)


def test_a_request_that_envoy_has_placed_by_itself_failed_open_and_a_refused_one_did_not(core: Core) -> None:
    by_envoy = LogEntry(0.0, 1.0, 200, 1, frozenset(), 0, {}, {})
    refused = LogEntry(0.0, 0.1, 503, 0, frozenset(), 0, {}, {})
    not_routed = LogEntry(0.0, 0.1, 503, 1, frozenset({"NC"}), 0, {}, {})
    for log in (by_envoy, refused, not_routed):
        assert core.learn(log, 1.0) is None
    placed = routed(place(core)).metadata
    assert core.learn(LogEntry(0.0, 1.0, 200, 1, frozenset(), 0, placed, {}), 2.0) is not None
    counts = core.feedback.counts
    assert (counts.unplaced, counts.failed_open) == (2, 1)


def test_a_second_attempt_is_booked_where_it_is_and_blames_the_first_choice_once(core: Core) -> None:
    placements = [place(core), place(core)]
    assert {routed(placement).cluster for placement in placements} == NAMES
    one, two = backend_named(core, "vllm-1"), backend_named(core, "vllm-2")
    for _ in range(3):
        assert core.learn(retry("UpstreamPoolReady"), 1.1) is None
    assert (one.own, two.own) == (0, 2), "only one was booked there"
    assert one.breaker.is_tripped
    core.learn(retry("UpstreamEnd", status=200), 1.2)
    for placement in placements:
        end(placement, 1.3)
    assert (one.own, two.own) == (0, 0)
    one.breaker.reset()
    late = replace(entry(core, "vllm-1", 200, ttft_us="300000"), attempts=2)
    for _ in range(5):
        core.learn(late, 9.0)
    assert not one.breaker.is_tripped, "its failure was counted when it happened"
    assert isnan(one.observed_ttft_s)
    assert (core.router.bookings.retries, core.feedback.counts.unplaced) == (3, 0)


def test_a_second_attempt_that_fails_blames_both(core: Core) -> None:
    for _ in range(3):
        core.learn(retry("UpstreamEnd", "UF"), 1.0)
    assert all(backend_named(core, name).breaker.is_tripped for name in NAMES)


def test_without_a_budget_a_request_is_placed_without_a_second_attempt(core: Core) -> None:
    for _ in range(100):
        core.router.bookings.retried()
    assert routed(place(core)).cluster in {"vllm-1_endpoint", "vllm-2_endpoint"}


def turn(core: Core, chain: tuple[int, ...], now_s: float = 1.0) -> tuple[Backend, Placement]:
    """Place a turn of a conversation, and return its backend."""
    placement = place(core, prefix=chain, now_s=now_s)
    return backend_named(core, routed(placement).cluster), placement


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
    backend.places = 1
    assert turn(core, (1, 2, 3, 4), now_s=2.0)[0] is backend
    assert turn(core, (1, 2, 3, 5), now_s=3.0)[0] is not backend, "it runs no second request at once"


def test_tokens_that_are_expected_in_the_cache_are_not_counted_as_work(core: Core) -> None:
    backend, placement = turn(core, (1, 2, 3))
    whole_s = backend.prefilled_at_s - 1.0
    end(placement)
    placement = turn(core, (1, 2, 3), now_s=5.0)[1]
    assert backend.prefilled_at_s - 5.0 == pytest.approx(whole_s / 4)
    assert core.router.counts.expected_cached_tokens == pytest.approx(75.0)
    log = LogEntry(0.0, 1.0, 200, 1, frozenset(), 0, routed(placement).metadata, {"ttft_us": "300000"})
    outcome = core.learn(log, 6.0)
    assert outcome is not None
    assert (outcome.sample.input_tokens, outcome.sample.new_tokens) == (100.0, pytest.approx(25.0))


def test_a_second_attempt_takes_its_prompt_along(core: Core) -> None:
    first, _ = turn(core, (1, 2, 3))
    (other,) = [backend for backend in core.registry.members if backend is not first]
    core.router.bookings.move(first, other, 1.0)
    assert core.fleet.prefixes.blocks_at((1, 2, 3))[other] == 3
