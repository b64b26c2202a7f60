import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.build import FAILURES, a_fleet, breaker_rule, fleet_rules, reserve, scrape

from extproc.fleet.backend import Backend
from extproc.fleet.fleet import Fleet
from extproc.fleet.fleet_rules import FleetRules, WaitingRule
from extproc.policy.decision import Reason
from extproc.routing.refusal import AdmissionRules, overloaded, retry_after_s, unknown_model

RULES = AdmissionRules(max_retry_after_s=60)
PAUSE_S = 20.0
NOW_S = 100.0


def slow_breakers(max_active: int = 4, waiting: WaitingRule | None = None) -> FleetRules:
    breaker = breaker_rule(min_pause_s=PAUSE_S, max_pause_s=40.0)
    return fleet_rules(max_active=max_active, breaker=breaker, waiting=waiting)


@pytest.fixture
def fleet() -> Fleet:
    """Two backends that hold at most four requests, and take new ones from two on."""
    return a_fleet(2, slow_breakers())


def retry_s(
    fleet: Fleet, *backends: Backend, now_s: float = NOW_S, rules: AdmissionRules = RULES, waiting: int = 0
) -> int:
    """Return the answer where these backends are the candidates, or all."""
    return retry_after_s(fleet.view(backends or fleet.backends, now_s), rules, waiting)


def fail(backend: Backend, at_s: float) -> None:
    for _ in range(FAILURES):
        backend.breaker.fail(at_s)


def fill(backend: Backend, requests: int = 4) -> None:
    reserve(backend, requests, NOW_S)


def finish(backend: Backend, per_second: int) -> None:
    """The backend has finished so many requests in each of the last hundred seconds."""
    for second in range(int(NOW_S) - 100, int(NOW_S)):
        for _ in range(per_second):
            backend.reserve(second)
            backend.release(second)


def test_a_client_is_sent_away_until_the_next_probe(fleet: Fleet) -> None:
    one, two = fleet.backends
    fail(one, NOW_S)
    fail(two, NOW_S - 5)
    assert retry_s(fleet) == 15
    assert retry_s(fleet, one) == 20
    assert retry_s(fleet, one, now_s=NOW_S + 0.5) == 20
    assert retry_s(fleet, one, now_s=NOW_S + 19.9) == 1


def test_while_a_probe_is_under_way_the_answer_is_the_maximum(fleet: Fleet) -> None:
    one, _ = fleet.backends
    fail(one, NOW_S)
    one.reserve(NOW_S + PAUSE_S)
    assert retry_s(fleet, one, now_s=NOW_S + PAUSE_S) == 60


def test_the_wait_is_the_load_above_the_limit_divided_by_the_drain_rate(fleet: Fleet) -> None:
    one, two = fleet.backends
    finish(one, per_second=1)
    fill(one, requests=12)
    assert retry_s(fleet, one) == 11  # ten, and what the rate has decayed
    finish(two, per_second=5)
    fill(two, requests=12)
    assert retry_s(fleet, two) == 3
    assert retry_s(fleet) == 3, "the one that is ready first"


def test_requests_that_wait_in_the_queue_are_drained_by_all_candidates_before(fleet: Fleet) -> None:
    for backend in fleet.backends:
        finish(backend, per_second=1)
        fill(backend, requests=12)
    assert retry_s(fleet, waiting=20) == pytest.approx(retry_s(fleet) + 10, abs=1)


def test_a_queue_that_is_too_long_has_to_drain_only_to_its_limit() -> None:
    waiting = WaitingRule(burst_s=1.0, standing_share=0.2)
    fleet = a_fleet(1, slow_breakers(1000, waiting))
    (backend,) = fleet.backends
    finish(backend, per_second=10)
    fill(backend, requests=102)
    for second in range(-20, 1):
        scrape(backend, 2, 100, own_when_asked=102, now_s=NOW_S + second)
    # Two run, four get their turn in time: nothing else is known, so each takes 0.05 s.
    assert retry_s(fleet) == pytest.approx((102 - 6) / 10, abs=2)


def test_without_a_drain_rate_the_answer_is_the_maximum(fleet: Fleet) -> None:
    for backend in fleet.backends:
        fill(backend)
    assert retry_s(fleet) == 60


def test_without_a_candidate_the_answer_is_the_maximum(fleet: Fleet) -> None:
    assert retry_after_s(fleet.view((), NOW_S), RULES) == 60


def test_the_answer_is_capped(fleet: Fleet) -> None:
    one, two = fleet.backends
    finish(one, per_second=1)
    fill(one, requests=1000)
    assert retry_s(fleet, one) == 60
    fail(two, NOW_S)
    assert retry_s(fleet, two, rules=AdmissionRules(7)) == 7


def test_a_failing_backend_and_a_full_one_are_compared(fleet: Fleet) -> None:
    one, two = fleet.backends
    finish(one, per_second=1)
    fill(one, requests=12)
    fail(two, NOW_S)
    assert retry_s(fleet) == 11
    assert retry_s(fleet, now_s=NOW_S + 15) == 5


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["reserve", "finish", "fail"]), st.integers(0, 1)), max_size=40),
    st.floats(0, 1000),
)
def test_the_answer_is_always_a_whole_number_of_seconds_within_bounds(
    events: list[tuple[str, int]], later_s: float
) -> None:
    fleet = a_fleet(2, slow_breakers())
    for number, (event, which) in enumerate(events):
        backend, now_s = fleet.backends[which], NOW_S + number
        if event == "fail":
            fail(backend, now_s)
            continue
        backend.reserve(now_s)
        if event == "finish":
            backend.release(now_s)
    answer = retry_s(fleet, now_s=NOW_S + later_s)
    assert isinstance(answer, int)
    assert 1 <= answer <= 60


@pytest.mark.parametrize("reason", [Reason.SATURATED, Reason.WAIT_TOO_LONG, Reason.FAILING])
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
