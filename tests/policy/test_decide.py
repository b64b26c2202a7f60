from dataclasses import dataclass
from dataclasses import replace as rules_with
from math import inf
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extproc.fleet.pace import Pace
from extproc.fleet.prediction_record import TrackRecord, TrustRule
from extproc.fleet.state import BackendState
from extproc.fleet.view import FleetView
from extproc.learning.predictor import Predictor
from extproc.policy.decide import decide
from extproc.policy.decision import Decision, Layer, Reason
from extproc.policy.policy_rules import PolicyRules
from extproc.request.request import InputSize, Request, RequestKind

RULES = PolicyRules(is_predict_enabled=True, max_predicted_ttft_s=5.0, tie_fraction=0.05, max_candidates=16)
REQUEST = Request(
    kind=RequestKind.CHAT,
    path="/v1/chat/completions",
    model="m",
    is_stream=True,
    input_size=InputSize(text_bytes=4000),
    input_tokens=1000,
    token_limit=None,
    priority=0,
    body_bytes=4100,
    has_body=True,
)
MEDIUM_LOAD = 10.0
NOW_S = 100.0


@dataclass(frozen=True)
class _Manifest:
    model_version: str = "v1"


class FakeModel:
    """TTFT = seconds_per_running x num_running; knows up to `max_running`."""

    manifest = _Manifest()
    promised_error = 0.1

    def __init__(self, seconds_per_running: float = 0.1, max_running: float = 100.0) -> None:
        self.asked_rows = 0
        self._slope = seconds_per_running
        self._max_running = max_running

    def in_range(self, rows: np.ndarray) -> np.ndarray:
        result: np.ndarray = rows[:, 0] <= self._max_running
        return result

    def predict_log_ttft(self, rows: np.ndarray) -> np.ndarray:
        self.asked_rows += len(rows)
        result: np.ndarray = np.log(self._slope * rows[:, 0])
        return result


def fleet_view(load: list[float], order: list[int] | None = None, **facts: list[Any]) -> FleetView:
    """Candidates with these loads, all fit and fresh unless `facts` say otherwise; slots count from 5."""
    n = len(load)
    running = facts.get("num_running", load)
    is_fresh, is_admitting = facts.get("is_fresh", [True] * n), facts.get("is_admitting", [True] * n)
    is_refusing = facts.get("is_refusing", [False] * n)
    is_saturated = facts.get("is_saturated", [False] * n)
    is_queue_long = facts.get("is_queue_long", [False] * n)
    states = [
        BackendState(
            slot=5 + i,
            medium_load=MEDIUM_LOAD,
            closed_above=-1.0 if is_saturated[i] or is_queue_long[i] else inf,
            full_above=-1.0 if is_saturated[i] else inf,
            running_limit=running[i],
            own=int(load[i]),
            own_at_scrape=int(load[i]),
            running=running[i],
            scraped_at_s=NOW_S - (0.1 if is_fresh[i] else 9.0),
            admits_at_s=0.0 if is_admitting[i] else inf,
            is_refusing=is_refusing[i],
        )
        for i in (range(n) if order is None else order)
    ]
    return FleetView(states, NOW_S, stale_after_s=2.0)


def track_record() -> TrackRecord:
    record = TrackRecord(2000, TrustRule(error_factor=2.0, error_floor=0.2, min_outcomes=3))
    record.begin("v1")
    return record


def placed(
    fleet: FleetView,
    model: FakeModel | None = None,
    request: Request = REQUEST,
    record: TrackRecord | None = None,
    rules: PolicyRules = RULES,
    seed: int = 0,
) -> Decision:
    rng = np.random.default_rng(seed)
    return decide(request, fleet, cast(Predictor, model), record or track_record(), rules, rng)


def chosen_slot(decision: Decision) -> int | None:
    return decision.chosen.slot if decision.chosen else None


def test_in_the_low_zone_the_least_loaded_wins() -> None:
    decision = placed(fleet_view([3, 1, 2]), FakeModel())
    assert (decision.layer, decision.reason, chosen_slot(decision)) == (Layer.LEAST_LOAD, Reason.LOW_ZONE, 6)


def test_a_fast_machine_with_more_load_is_preferred_to_a_slow_one_with_less() -> None:
    fleet = fleet_view([3, 2])
    fleet.states[0].pace = Pace(base_s=0.05, token_s=1e-4, turn_s=0.1)
    fleet.states[1].pace = Pace(base_s=0.2, token_s=4e-4, turn_s=0.4)
    assert chosen_slot(placed(fleet)) == 5


def test_while_one_backend_is_low_another_may_be_chosen_that_is_faster_all_the_same() -> None:
    fleet = fleet_view([MEDIUM_LOAD, MEDIUM_LOAD - 1])
    fleet.states[1].pace = Pace(base_s=9.0)
    decision = placed(fleet, FakeModel())
    assert (decision.reason, chosen_slot(decision)) == (Reason.LOW_ZONE, 5)


def test_a_tie_of_loads_is_broken_at_random() -> None:
    fleet = fleet_view([1, 1, 1, 4])
    assert {chosen_slot(placed(fleet, seed=seed)) for seed in range(50)} == {5, 6, 7}


def test_in_the_medium_zone_the_smallest_prediction_wins_over_the_smallest_load() -> None:
    fleet = fleet_view([20, 30], num_running=[20, 12])
    decision = placed(fleet, FakeModel())
    assert (decision.layer, decision.reason) == (Layer.PREDICT, Reason.LOWEST_PREDICTION)
    assert chosen_slot(decision) == 6
    assert decision.prediction is not None
    assert decision.prediction.ttft_s == pytest.approx(1.2)


def test_predictions_within_five_percent_are_a_tie_that_load_breaks() -> None:
    fleet = fleet_view([22, 21], num_running=[20.0, 20.9])
    decision = placed(fleet, FakeModel())
    assert (decision.reason, chosen_slot(decision)) == (Reason.PREDICTION_TIE, 6)


def test_a_backend_in_the_low_zone_is_preferred_to_any_prediction() -> None:
    model = FakeModel()
    decision = placed(fleet_view([20, 9]), model)
    assert (decision.reason, chosen_slot(decision), model.asked_rows) == (Reason.LOW_ZONE, 6, 0)


def test_unequal_machines_are_told_apart_by_their_corrections() -> None:
    record = track_record()
    for _ in range(30):
        record.observe(5, "v1", model_log_ttft=0.0, ttft_s=3.0)
        record.observe(6, "v1", model_log_ttft=0.0, ttft_s=1.0)
    decision = placed(fleet_view([12, 20]), FakeModel(), record=record)
    assert (decision.layer, chosen_slot(decision)) == (Layer.PREDICT, 6)


def test_without_a_model_the_least_loaded_wins() -> None:
    decision = placed(fleet_view([20, 30]))
    assert (decision.layer, decision.reason, chosen_slot(decision)) == (Layer.LEAST_LOAD, Reason.NO_MODEL, 5)


def test_layer_two_can_be_switched_off() -> None:
    decision = placed(fleet_view([20, 30]), FakeModel(), rules=rules_with(RULES, is_predict_enabled=False))
    assert decision.reason == Reason.DISABLED


@pytest.mark.parametrize(
    "request_", [replace(REQUEST, model=None), replace(REQUEST, kind=RequestKind.EMBEDDING)]
)
def test_what_is_no_readable_generation_is_not_predicted(request_: Request) -> None:
    model = FakeModel()
    decision = placed(fleet_view([20, 30]), model, request=request_)
    assert (decision.reason, model.asked_rows) == (Reason.UNPREDICTABLE, 0)


def test_a_stale_backend_is_never_asked_about() -> None:
    model = FakeModel()
    decision = placed(fleet_view([20, 30], is_fresh=[False, False]), model)
    assert (decision.reason, model.asked_rows) == (Reason.STALE_SIGNALS, 0)


def test_outside_the_training_range_load_decides() -> None:
    decision = placed(fleet_view([70, 80]), FakeModel(max_running=50))
    assert (decision.layer, decision.reason) == (Layer.LEAST_LOAD, Reason.OUT_OF_RANGE)


def test_a_running_error_above_the_promised_one_turns_the_layer_off_for_that_backend() -> None:
    record = track_record()
    for ttft_s in (0.1, 9.0) * 10:
        record.observe(5, "v1", model_log_ttft=0.0, ttft_s=ttft_s)
    decision = placed(fleet_view([20, 30]), FakeModel(), record=record)
    assert (decision.reason, chosen_slot(decision)) == (Reason.RUNNING_ERROR, 5)
    assert decision.prediction is not None, "it goes on being asked, so that it can earn its trust back"


def test_a_doubted_backend_with_more_load_does_not_win_over_a_prediction() -> None:
    decision = placed(fleet_view([20, 30], is_fresh=[True, False]), FakeModel())
    assert (decision.layer, chosen_slot(decision)) == (Layer.PREDICT, 5)


def test_failing_and_saturated_backends_are_out_and_counted() -> None:
    fleet = fleet_view([1, 2, 3], is_admitting=[False, True, True], is_saturated=[False, True, False])
    decision = placed(fleet)
    assert (chosen_slot(decision), decision.guarded) == (7, 2)


def test_where_only_queues_keep_a_request_from_its_place_the_reason_says_so() -> None:
    decision = placed(fleet_view([50, 60], is_saturated=[True, False], is_queue_long=[False, True]))
    assert (decision.layer, decision.reason, decision.guarded) == (Layer.REJECT, Reason.WAIT_TOO_LONG, 2)


def test_a_backend_with_a_long_queue_is_passed_over() -> None:
    assert chosen_slot(placed(fleet_view([1, 2], is_queue_long=[True, False]))) == 6


def test_what_does_not_occupy_the_engine_does_not_wait_in_its_queue() -> None:
    decision = placed(fleet_view([50], is_queue_long=[True]), request=replace(REQUEST, has_body=False))
    assert decision.chosen is not None


def test_when_all_are_saturated_the_request_is_refused() -> None:
    decision = placed(fleet_view([50, 60], is_saturated=[True, True]))
    assert (decision.layer, decision.reason, decision.chosen) == (Layer.REJECT, Reason.SATURATED, None)


def test_when_all_fail_the_request_is_refused() -> None:
    assert placed(fleet_view([1], is_admitting=[False], is_fresh=[False])).reason == Reason.FAILING


def test_a_backend_that_was_scraped_a_moment_ago_and_refuses_by_now_is_not_alive() -> None:
    view = fleet_view([1, 2], is_admitting=[False] * 2, is_refusing=[True] * 2)
    assert placed(view).reason == Reason.FAILING


def test_when_all_fail_but_some_are_alive_the_client_gets_a_backends_own_answer() -> None:
    view = fleet_view([1, 3, 5], is_admitting=[False] * 3, is_fresh=[False, True, True])
    decision = placed(view)
    assert (decision.layer, decision.reason) == (Layer.LEAST_LOAD, Reason.ALL_FAILING)
    assert (chosen_slot(decision), decision.guarded) == (6, 3)


def test_a_request_without_a_body_is_not_refused_for_saturation() -> None:
    decision = placed(fleet_view([50], is_saturated=[True]), request=replace(REQUEST, has_body=False))
    assert decision.layer == Layer.LEAST_LOAD


def test_a_backend_that_is_predicted_too_slow_is_taken_out() -> None:
    decision = placed(fleet_view([60, 20]), FakeModel())
    assert (chosen_slot(decision), decision.predicted_saturated, decision.guarded) == (6, (5,), 1)


def test_when_all_are_predicted_too_slow_the_request_is_refused() -> None:
    decision = placed(fleet_view([60, 70]), FakeModel())
    assert (decision.layer, decision.reason) == (Layer.REJECT, Reason.PREDICTED_SATURATED)
    assert decision.predicted_saturated == (5, 6)


def test_the_model_is_asked_about_the_least_loaded_only() -> None:
    model = FakeModel()
    placed(fleet_view([float(20 + i % 40) for i in range(1000)]), model)
    assert model.asked_rows == 16


def test_without_candidates_nobody_is_chosen() -> None:
    assert placed(fleet_view([])).reason == Reason.NO_BACKEND


loads = st.lists(st.integers(0, 60).map(float), min_size=1, max_size=30)


@given(loads, st.data(), st.booleans())
def test_the_choice_is_a_fit_candidate_and_ties_aside_their_order_does_not_matter(
    load: list[float], data: st.DataObject, has_model: bool
) -> None:
    n = len(load)
    flags = st.lists(st.booleans(), min_size=n, max_size=n)
    facts = {name: data.draw(flags) for name in ("is_fresh", "is_admitting", "is_saturated")}
    facts["num_running"] = data.draw(st.lists(st.integers(1, 60).map(float), min_size=n, max_size=n))
    model = FakeModel() if has_model else None
    fleet = fleet_view(load, **facts)
    order = data.draw(st.permutations(range(n)))
    first, second = placed(fleet, model), placed(fleet_view(load, order, **facts), model)
    assert (first.layer, first.reason, first.guarded) == (second.layer, second.reason, second.guarded)
    for decision in (first, second):
        if decision.chosen is None:
            assert decision.layer == Layer.REJECT
            continue
        position = decision.chosen.slot - 5
        assert facts["is_admitting"][position] or not any(facts["is_admitting"])
        assert not facts["is_saturated"][position]
        assert decision.chosen.load == load[position]
    if first.chosen and second.chosen:
        assert first.chosen.load == second.chosen.load


def test_the_zone_of_a_candidate_follows_load_boundary_and_guard() -> None:
    candidates = fleet_view([3, 10, 1], is_saturated=[False, False, True])
    zones = [candidates.candidate(position).zone for position in range(3)]
    assert zones == ["low", "medium", "saturated"]
