from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as row_with
from math import inf, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.build import (
    PAUSE_S,
    a_backend,
    a_request,
    fleet_rules,
    policy_rules,
    settle,
    trust_rule,
    view_of,
)
from support.toy_api import TOY

from extproc.fleet.backend import Backend
from extproc.fleet.pace import Pace
from extproc.fleet.prediction_record import PredictedOutcome, RankRecord
from extproc.fleet.view import FleetView
from extproc.fleet.wait_terms import ExpectedWait
from extproc.learning.features import FEATURES, GAUGES, ROW
from extproc.policy.decide import PolicyRules, decide, last_resort
from extproc.policy.decision import Decision, Layer, Reason
from extproc.request.api import EMBEDDING
from extproc.request.request import Request

RULES = policy_rules()
REQUEST = a_request(input_tokens=1000)
FLEET = fleet_rules(trust=trust_rule(min_outcomes=1))
NOW_S = 100.0
PACE = Pace(base_s=0.0, token_s=1e-7, turn_s=0.1)
"""With one place, a candidate's estimate is a tenth of a second for each request in flight."""
INPUT = FEATURES.index("input_tokens")


@dataclass(frozen=True)
class _Manifest:
    model_version: str = "v1"


class FakeModel:
    """TTFT = seconds_per_running x num_running, whatever the estimate."""

    manifest = _Manifest()

    def __init__(self, seconds_per_running: float = 0.1) -> None:
        self.asked_rows: list[tuple[float, ...]] = []
        self._slope = seconds_per_running

    def corrections(self, rows: Sequence[bytes]) -> list[float]:
        asked = [ROW.unpack(row) for row in rows]
        self.asked_rows += asked
        return [log(self._slope * row[0] / ExpectedWait(*row[len(GAUGES) :]).ttft_s) for row in asked]


def a_candidate(
    load: float,
    number: int = 0,
    *,
    num_running: float | None = None,
    is_fresh: bool = True,
    is_admitting: bool = True,
    is_refusing: bool = False,
    is_saturated: bool = False,
    is_queue_long: bool = False,
    is_trusted: bool = True,
) -> Backend:
    """A backend with this load, which all runs, unless `num_running` do."""
    backend = a_backend(FLEET, number=number)
    running = load if num_running is None else num_running
    backend.own = backend.own_at_scrape = int(load)
    backend.running = backend.running_limit = running
    backend.pace, backend.places = PACE, 1.0
    backend.scraped_at_s = NOW_S - (0.1 if is_fresh else 9.0)
    backend.breaker.admits_at_s = 0.0 if is_admitting else inf
    backend.is_refusing = is_refusing
    backend.limits.full_above = -1.0 if is_saturated else inf
    backend.closed_above = -1.0 if is_saturated or is_queue_long else inf
    backend.predictions.begin("v1", RankRecord())
    if is_trusted:
        backend.predictions.observe("v1", PredictedOutcome(backend.name, 0.0, 1000.0, 0.0, 0.0, 1.0))
    return backend


def candidates(loads: list[float], **facts: list[Any]) -> FleetView:
    """Candidates with these loads, all fit and fresh unless `facts`, one list each, say otherwise."""
    return view_of(
        [
            a_candidate(load, number, **{name: values[number] for name, values in facts.items()})
            for number, load in enumerate(loads)
        ],
        NOW_S,
    )


def placed(
    view: FleetView,
    model: FakeModel | None = None,
    request: Request = REQUEST,
    rules: PolicyRules = RULES,
    seed: int = 0,
) -> Decision:
    settle(view.backends)
    return decide(request, view, model, rules, np.random.default_rng(seed))


def chosen(decision: Decision, view: FleetView) -> int | None:
    """Return the number of the chosen candidate."""
    return None if decision.chosen is None else list(view.backends).index(decision.chosen)


def test_in_the_low_zone_the_least_loaded_wins() -> None:
    view = candidates([3, 1, 2])
    decision = placed(view, FakeModel())
    assert (decision.layer, decision.reason, chosen(decision, view)) == (
        Layer.LEAST_LOAD,
        Reason.LOW_ZONE,
        1,
    )


def test_a_fast_machine_with_more_load_is_preferred_to_a_slow_one_with_less() -> None:
    view = candidates([3, 2])
    fast, slow = view.backends
    fast.pace = Pace(base_s=0.05, token_s=1e-4, turn_s=0.1)
    slow.pace = Pace(base_s=0.2, token_s=4e-4, turn_s=0.4)
    assert placed(view).chosen is fast


def test_the_score_that_the_rules_name_decides() -> None:
    view = candidates([3, 2])
    fast, slow = view.backends
    fast.pace, slow.pace = Pace(base_s=0.05), Pace(base_s=0.9)
    rules = row_with(RULES, score="requests_in_flight")
    assert placed(view).chosen is fast
    assert placed(view, rules=rules).chosen is slow, "it has fewer requests in flight"


def test_the_score_that_the_rules_name_decides_where_no_model_has_a_say() -> None:
    rules = row_with(RULES, score="requests_in_flight")
    for facts in ({"is_trusted": [False, False]}, {"is_fresh": [False, False]}):
        view = candidates([22, 21], **facts)
        view.backends[1].pace = Pace(base_s=4.0)
        assert chosen(placed(view, FakeModel()), view) == 0
        assert chosen(placed(view, FakeModel(), rules=rules), view) == 1


def test_estimates_that_differ_by_noise_are_a_tie_that_load_breaks() -> None:
    view = candidates([3, 1, 2])
    for backend, base_s in zip(view.backends, (0.300, 0.315, 0.5), strict=True):
        backend.pace, backend.places = Pace(base_s=base_s), 100.0
    assert chosen(placed(view), view) == 1


def test_equals_take_turns() -> None:
    view = candidates([1, 1, 1])
    for number, backend in enumerate(view.backends):
        backend.silence.chosen_at_s = NOW_S - (3, 9, 5)[number]
    assert {chosen(placed(view, seed=seed), view) for seed in range(20)} == {1}


def test_a_near_tie_never_costs_cached_tokens() -> None:
    view = candidates([3, 1])
    for backend, base_s in zip(view.backends, (0.300, 0.305), strict=True):
        backend.pace, backend.places = Pace(base_s=base_s, token_s=1e-5), 100.0
    one, other = view.backends
    cached = FleetView(view.backends, NOW_S, NOW_S - 2, {one: 500.0})
    assert placed(cached).chosen is one
    assert placed(FleetView(view.backends, NOW_S, NOW_S - 2, {one: 500.0, other: 500.0})).chosen is other


def test_a_tie_of_loads_is_broken_at_random() -> None:
    view = candidates([1, 1, 1, 4])
    assert {chosen(placed(view, seed=seed), view) for seed in range(50)} == {0, 1, 2}


def test_in_the_medium_zone_the_smallest_corrected_estimate_wins_over_the_smallest_plain_one() -> None:
    view = candidates([20, 30], num_running=[20, 12])
    decision = placed(view, FakeModel())
    assert (decision.layer, decision.reason) == (Layer.PREDICT, Reason.LOWEST_PREDICTION)
    assert chosen(decision, view) == 1
    assert decision.prediction is not None
    assert decision.prediction.ttft_s == pytest.approx(1.2)


def test_the_model_is_asked_about_the_part_of_the_prompt_that_is_not_expected_in_the_cache() -> None:
    one, two, _ = backends = [a_candidate(20, number) for number in range(3)]
    model = FakeModel()
    placed(FleetView(backends, NOW_S, NOW_S - 2.0, {one: 750.0, two: 2000.0}), model)
    assert [row[INPUT] for row in model.asked_rows] == [250.0, 0.0, 1000.0]


def test_a_backend_in_the_low_zone_is_preferred_to_any_prediction() -> None:
    view, model = candidates([20, 9]), FakeModel()
    decision = placed(view, model)
    assert (decision.reason, chosen(decision, view), model.asked_rows) == (Reason.LOW_ZONE, 1, [])


def test_without_a_model_the_least_loaded_wins() -> None:
    view = candidates([20, 30])
    decision = placed(view)
    assert (decision.layer, decision.reason, chosen(decision, view)) == (
        Layer.LEAST_LOAD,
        Reason.NO_MODEL,
        0,
    )


def test_layer_two_can_be_switched_off() -> None:
    decision = placed(candidates([20, 30]), FakeModel(), rules=policy_rules(is_predict_enabled=False))
    assert decision.reason == Reason.DISABLED


def test_the_row_of_an_api_says_whether_its_requests_are_generations() -> None:
    view, toy = candidates([20, 30]), replace(REQUEST, api=TOY)
    assert placed(view, FakeModel(), request=toy).layer is Layer.PREDICT
    embedded = replace(toy, api=row_with(TOY, is_generation=False))
    assert placed(view, FakeModel(), request=embedded).reason is Reason.UNPREDICTABLE


@pytest.mark.parametrize("request_", [replace(REQUEST, model=None), replace(REQUEST, api=EMBEDDING)])
def test_a_request_that_is_no_readable_generation_is_not_predicted(request_: Request) -> None:
    model = FakeModel()
    decision = placed(candidates([20, 30]), model, request=request_)
    assert (decision.reason, model.asked_rows) == (Reason.UNPREDICTABLE, [])


def test_a_stale_backend_is_never_asked_about() -> None:
    model = FakeModel()
    decision = placed(candidates([20, 30], is_fresh=[False, False]), model)
    assert (decision.reason, model.asked_rows) == (Reason.STALE_SIGNALS, [])


def test_a_model_that_has_not_shown_that_it_helps_is_a_correction_of_zero_and_goes_on_being_asked() -> None:
    view = candidates([20, 30], num_running=[20, 12], is_trusted=[False, False])
    decision = placed(view, FakeModel())
    assert (decision.layer, decision.reason) == (Layer.LEAST_LOAD, Reason.RUNNING_ERROR)
    assert chosen(decision, view) == 0
    assert decision.prediction is not None, "so that it can earn its trust"


def test_plain_and_corrected_estimates_are_compared_with_each_other() -> None:
    view = candidates([20, 30], num_running=[20, 12], is_trusted=[False, True])
    assert (placed(view, FakeModel()).layer, chosen(placed(view, FakeModel()), view)) == (Layer.PREDICT, 1)
    view = candidates([20, 30], num_running=[20, 12], is_trusted=[True, False])
    assert (placed(view, FakeModel()).layer, chosen(placed(view, FakeModel()), view)) == (Layer.PREDICT, 0)


def test_the_facts_have_the_plain_estimate_as_it_was() -> None:
    decision = placed(candidates([20, 30], num_running=[20, 12]), FakeModel())
    assert decision.facts is not None
    assert decision.facts.estimate.ttft_s == pytest.approx(3.0, abs=1e-3)


def test_a_stale_backend_counts_with_its_plain_estimate() -> None:
    view = candidates([20, 30], is_fresh=[True, False])
    decision = placed(view, FakeModel())
    assert (decision.layer, chosen(decision, view)) == (Layer.PREDICT, 0)


def test_failing_and_saturated_backends_are_out_and_counted() -> None:
    view = candidates([1, 2, 3], is_admitting=[False, True, True], is_saturated=[False, True, False])
    decision = placed(view)
    assert (chosen(decision, view), decision.guarded) == (2, 2)


def test_where_only_long_queues_keep_a_request_out_the_reason_says_so() -> None:
    decision = placed(candidates([50, 60], is_saturated=[True, False], is_queue_long=[False, True]))
    assert (decision.layer, decision.reason, decision.guarded) == (Layer.REJECT, Reason.WAIT_TOO_LONG, 2)


def test_a_backend_with_a_long_queue_is_passed_over() -> None:
    view = candidates([1, 2], is_queue_long=[True, False])
    assert chosen(placed(view), view) == 1


def test_a_request_without_a_body_does_not_wait_in_the_queue_of_an_engine() -> None:
    decision = placed(candidates([50], is_queue_long=[True]), request=replace(REQUEST, has_body=False))
    assert decision.chosen is not None


def test_when_all_are_saturated_the_request_is_refused() -> None:
    decision = placed(candidates([50, 60], is_saturated=[True, True]))
    assert (decision.layer, decision.reason, decision.chosen) == (Layer.REJECT, Reason.SATURATED, None)


def test_when_all_fail_the_request_is_refused() -> None:
    assert placed(candidates([1], is_admitting=[False], is_fresh=[False])).reason == Reason.FAILING


def test_a_backend_that_was_scraped_a_moment_ago_and_refuses_by_now_is_not_alive() -> None:
    view = candidates([1, 2], is_admitting=[False] * 2, is_refusing=[True] * 2)
    assert placed(view).reason == Reason.FAILING


def test_when_all_fail_but_some_are_alive_the_client_gets_a_backends_own_answer() -> None:
    view = candidates([1, 3, 5], is_admitting=[False] * 3, is_fresh=[False, True, True])
    decision = placed(view)
    assert (decision.layer, decision.reason) == (Layer.LEAST_LOAD, Reason.ALL_FAILING)
    assert (chosen(decision, view), decision.guarded) == (1, 3)


def tripped(view: FleetView, number: int, failed_at_s: float) -> Backend:
    backend = view.backends[number]
    for _ in range(FLEET.breaker.consecutive_failures):
        backend.breaker.fail(failed_at_s)
    return backend


def resort(view: FleetView, request: Request = REQUEST) -> Decision | None:
    return last_resort(request, view, RULES, np.random.default_rng(0))


def test_before_a_refusal_a_backend_is_tried_that_failed_and_is_alive_and_has_room() -> None:
    view = candidates([50, 1, 60], is_saturated=[True, False, True])
    failed = tripped(view, 1, NOW_S - PAUSE_S)
    decision = resort(view)
    assert decision is not None
    assert (decision.layer, decision.reason, decision.chosen) == (
        Layer.LEAST_LOAD,
        Reason.LAST_RESORT,
        failed,
    )
    assert decision.guarded == 3


@pytest.mark.parametrize(
    "facts",
    [{"is_fresh": [True, False]}, {"is_refusing": [False, True]}, {"is_saturated": [True, True]}],
)
def test_a_backend_that_failed_and_is_dead_or_full_is_no_last_resort(facts: dict[str, list[bool]]) -> None:
    view = candidates([50, 1], **{"is_saturated": [True, False]} | facts)
    tripped(view, 1, NOW_S - PAUSE_S)
    assert resort(view) is None


def test_a_backend_that_failed_a_moment_ago_is_no_last_resort() -> None:
    view = candidates([50, 1], is_saturated=[True, False])
    tripped(view, 1, NOW_S - 0.9 * PAUSE_S)
    assert resort(view) is None


def test_a_request_without_a_body_is_not_refused_for_saturation() -> None:
    decision = placed(candidates([50], is_saturated=[True]), request=replace(REQUEST, has_body=False))
    assert decision.layer == Layer.LEAST_LOAD


def test_the_model_is_asked_about_those_with_the_smallest_estimates_only() -> None:
    model = FakeModel()
    placed(candidates([float(20 + i % 40) for i in range(1000)]), model)
    assert [row[1] for row in model.asked_rows] == [20.0] * 16


def test_without_candidates_no_backend_is_chosen() -> None:
    assert placed(candidates([])).reason == Reason.NO_BACKEND


def test_the_facts_of_a_decision_are_those_of_the_chosen_backend() -> None:
    view = candidates([3, 10, 1], is_saturated=[False, False, True])
    decision = placed(view)
    assert decision.chosen is not None
    assert decision.facts == view.facts(decision.chosen, decision.facts.estimate)
    assert (decision.facts.load, decision.facts.zone) == (3.0, "low")


loads = st.lists(st.integers(0, 60).map(float), min_size=1, max_size=30)


@given(loads, st.data(), st.booleans())
def test_the_choice_is_a_fit_candidate_and_ties_aside_their_order_does_not_matter(
    load: list[float], data: st.DataObject, has_model: bool
) -> None:
    n = len(load)
    flags = st.lists(st.booleans(), min_size=n, max_size=n)
    facts = {name: data.draw(flags) for name in ("is_fresh", "is_admitting", "is_saturated", "is_trusted")}
    facts["num_running"] = data.draw(st.lists(st.integers(1, 60).map(float), min_size=n, max_size=n))
    model = FakeModel() if has_model else None
    view = candidates(load, **facts)
    shuffled = view_of(data.draw(st.permutations(view.backends)), NOW_S)
    first, second = placed(view, model), placed(shuffled, model)
    assert (first.layer, first.reason, first.guarded) == (second.layer, second.reason, second.guarded)
    for decision in (first, second):
        if decision.chosen is None:
            assert decision.layer == Layer.REJECT
            continue
        number = list(view.backends).index(decision.chosen)
        assert facts["is_admitting"][number] or not any(facts["is_admitting"])
        assert not facts["is_saturated"][number]
        assert view.load(decision.chosen) == load[number]
    if first.chosen and second.chosen:
        assert view.load(first.chosen) == view.load(second.chosen)


def test_the_zone_of_a_candidate_follows_estimate_and_guard() -> None:
    view = candidates([3, 10, 1], is_saturated=[False, False, True])
    zones = [view.facts(each, ExpectedWait(turns_s=each.own / 10)).zone for each in view.backends]
    assert zones == ["low", "medium", "saturated"]
