import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.fleet.breaker import BreakerRule
from extproc.fleet.fleet import Fleet, FleetRules
from extproc.fleet.saturation import SaturationRule
from extproc.fleet.signals import Signals
from extproc.fleet.waiting_time import WaitingRule
from extproc.policy.decision import Reason
from extproc.routing.refusal import AdmissionRules, overloaded, retry_after_s, unknown_model

RULES = AdmissionRules(max_retry_after_s=60)
FAILURES, PAUSE_S = 3, 20.0
NOW_S = 100.0
EVERYONE = (0, 1)


@pytest.fixture
def fleet() -> Fleet:
    """Two backends that hold at most four requests, and take new ones from two on."""
    fleet = Fleet(FleetRules(SaturationRule(4, 2), BreakerRule(FAILURES, PAUSE_S, 40.0, 5.0), 2.0, 1.0, 16.0))
    for slot in EVERYONE:
        fleet.join(slot, None)
    return fleet


def fail(fleet: Fleet, slot: int, at_s: float) -> None:
    for _ in range(FAILURES):
        fleet.breakers.fail(slot, at_s)


def fill(fleet: Fleet, slot: int, requests: int = 4) -> None:
    for _ in range(requests):
        fleet.reserve(slot, NOW_S)


def finish(fleet: Fleet, slot: int, per_second: int) -> None:
    """The backend has finished so many requests in each of the last hundred seconds."""
    for second in range(int(NOW_S) - 100, int(NOW_S)):
        for _ in range(per_second):
            fleet.reserve(slot, float(second))
            fleet.release(slot, float(second))


def test_a_client_is_sent_away_until_the_next_probe(fleet: Fleet) -> None:
    fail(fleet, 0, NOW_S)
    fail(fleet, 1, NOW_S - 5)
    assert retry_after_s(fleet, EVERYONE, RULES, NOW_S) == 15
    assert retry_after_s(fleet, EVERYONE[:1], RULES, NOW_S) == 20
    assert retry_after_s(fleet, EVERYONE[:1], RULES, NOW_S + 0.5) == 20
    assert retry_after_s(fleet, EVERYONE[:1], RULES, NOW_S + 19.9) == 1


def test_while_a_probe_is_under_way_the_answer_is_the_maximum(fleet: Fleet) -> None:
    fail(fleet, 0, NOW_S)
    fleet.reserve(0, NOW_S + PAUSE_S)
    assert retry_after_s(fleet, EVERYONE[:1], RULES, NOW_S + PAUSE_S) == 60


def test_the_wait_is_what_has_to_drain_by_how_fast_it_drains(fleet: Fleet) -> None:
    finish(fleet, 0, per_second=1)
    fill(fleet, 0, requests=12)
    assert retry_after_s(fleet, EVERYONE[:1], RULES, NOW_S) == 11  # ten, and what the rate has decayed
    finish(fleet, 1, per_second=5)
    fill(fleet, 1, requests=12)
    assert retry_after_s(fleet, EVERYONE[1:], RULES, NOW_S) == 3
    assert retry_after_s(fleet, EVERYONE, RULES, NOW_S) == 3, "the one that is ready first"


def test_of_a_queue_that_is_too_long_only_what_is_too_much_has_to_drain() -> None:
    breaker = BreakerRule(FAILURES, PAUSE_S, 40.0, 5.0)
    waiting = WaitingRule(burst_s=1.0, standing_share=0.2)
    fleet = Fleet(FleetRules(SaturationRule(1000, 800), breaker, 2.0, 1.0, 16.0, waiting))
    fleet.join(0, None)
    finish(fleet, 0, per_second=10)
    fill(fleet, 0, requests=102)
    for second in range(-20, 1):
        fleet.scraped(0, Signals(2, 100), own_when_asked=102, now_s=NOW_S + second)
    # Two run, four get their turn in time: nothing else is known, so each takes 0.05 s.
    assert retry_after_s(fleet, EVERYONE[:1], RULES, NOW_S) == pytest.approx((102 - 6) / 10, abs=2)


def test_without_a_drain_rate_the_answer_is_the_maximum(fleet: Fleet) -> None:
    fill(fleet, 0)
    fill(fleet, 1)
    assert retry_after_s(fleet, EVERYONE, RULES, NOW_S) == 60


def test_the_answer_is_capped(fleet: Fleet) -> None:
    finish(fleet, 0, per_second=1)
    fill(fleet, 0, requests=1000)
    assert retry_after_s(fleet, EVERYONE[:1], RULES, NOW_S) == 60
    fail(fleet, 1, NOW_S)
    assert retry_after_s(fleet, EVERYONE[1:], AdmissionRules(7), NOW_S) == 7


def test_a_failing_backend_and_a_full_one_are_compared(fleet: Fleet) -> None:
    finish(fleet, 0, per_second=1)
    fill(fleet, 0, requests=12)
    fail(fleet, 1, NOW_S)
    assert retry_after_s(fleet, EVERYONE, RULES, NOW_S) == 11
    assert retry_after_s(fleet, EVERYONE, RULES, NOW_S + 15) == 5


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["reserve", "finish", "fail"]), st.integers(0, 1)), max_size=40),
    st.floats(0, 1000),
)
def test_the_answer_is_always_a_whole_number_of_seconds_within_bounds(
    events: list[tuple[str, int]], later_s: float
) -> None:
    fleet = Fleet(FleetRules(SaturationRule(4, 2), BreakerRule(FAILURES, PAUSE_S, 40.0, 5.0), 2.0, 1.0, 16.0))
    for slot in EVERYONE:
        fleet.join(slot, None)
    for number, (event, slot) in enumerate(events):
        if event == "fail":
            fail(fleet, slot, NOW_S + number)
            continue
        fleet.reserve(slot, NOW_S + number)
        if event == "finish":
            fleet.release(slot, NOW_S + number)
    answer = retry_after_s(fleet, EVERYONE, RULES, NOW_S + later_s)
    assert isinstance(answer, int)
    assert 1 <= answer <= 60


@pytest.mark.parametrize(
    "reason", [Reason.SATURATED, Reason.WAIT_TOO_LONG, Reason.PREDICTED_SATURATED, Reason.FAILING]
)
def test_an_overload_is_a_503_with_its_reason_and_when_to_come_back(reason: Reason) -> None:
    refusal = overloaded(reason, 7)
    error = json.loads(refusal.body)["error"]
    assert refusal.status == 503
    assert (error["type"], error["code"], error["param"]) == ("overloaded_error", 503, None)
    assert error["message"]
    assert refusal.headers == {
        "content-type": "application/json",
        "x-extproc-layer": "reject",
        "x-extproc-reason": reason.value,
        "retry-after": "7",
    }


@pytest.mark.parametrize("model", ["", 'a "quoted" one', "line\nbreak", "模型", "\0"])
def test_an_unknown_model_is_a_404_that_names_it(model: str) -> None:
    refusal = unknown_model(model)
    error = json.loads(refusal.body)["error"]
    assert refusal.status == 404
    assert error["message"] == f"The model `{model}` does not exist."
    assert (error["type"], error["code"], error["param"]) == ("NotFoundError", 404, "model")
    assert refusal.headers["x-extproc-reason"] == "unknown_model"
    assert "retry-after" not in refusal.headers


def test_a_long_name_is_cut() -> None:
    message = json.loads(unknown_model("z" * 100_000).body)["error"]["message"]
    assert message == f"The model `{'z' * 200}…` does not exist."
