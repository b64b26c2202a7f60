import json
import math
import re
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.build import (
    FAILURES,
    a_core,
    a_fleet,
    a_request,
    breaker_rule,
    endpoints,
    fleet_rules,
    reserve,
    scrape,
)

from extproc.exchange.messages import Phase, Reject
from extproc.fleet.backend import Backend
from extproc.fleet.fleet import Fleet
from extproc.fleet.fleet_rules import FleetRules, WaitingRule
from extproc.policy.decision import Reason
from extproc.request.api import CHAT, COUNT_TOKENS, MESSAGES, Api
from extproc.routing.refusal import (
    SPREAD,
    TEXTS,
    AdmissionRules,
    Returns,
    overloaded,
    turn_s,
    unknown_model,
)

PAUSE_S = 20.0
NOW_S = 100.0


def slow_breakers(max_active: int = 4, waiting: WaitingRule | None = None) -> FleetRules:
    breaker = breaker_rule(min_pause_s=PAUSE_S, max_pause_s=40.0)
    return fleet_rules(max_active=max_active, breaker=breaker, waiting=waiting)


@pytest.fixture
def fleet() -> Fleet:
    """Two backends that hold at most four requests, and take new ones from two on."""
    return a_fleet(2, slow_breakers())


def turn_of(fleet: Fleet, *backends: Backend, now_s: float = NOW_S, waiting: int = 0) -> float:
    """Return the time until these backends, or all, take one more."""
    return turn_s(fleet.view(backends or fleet.backends, now_s), waiting)


def returns(max_retry_after_s: int = 60) -> Returns:
    return Returns(AdmissionRules(max_retry_after_s), np.random.default_rng(0))


def told_s(fleet: Fleet, clients: int, of: Returns | None = None, model: str = "m") -> list[int]:
    """Return when this many are told to come back that are refused at one moment."""
    view, told = fleet.view(fleet.backends, NOW_S), of or returns()
    return [told.retry_after_s(model, view) for _ in range(clients)]


def fail(backend: Backend, at_s: float) -> None:
    for _ in range(FAILURES):
        backend.breaker.fail(at_s)


def fill(backend: Backend, requests: int = 4) -> None:
    reserve(backend, requests, NOW_S)


def drain(backend: Backend, per_second: int, in_flight: int = 12) -> None:
    """Have it finish this many requests in each of the last hundred seconds, and never be idle."""
    backend.reserve(0.0)
    for second in range(int(NOW_S) - 100, int(NOW_S)):
        for _ in range(per_second):
            backend.reserve(second)
            backend.release(second)
    fill(backend, in_flight - 1)


def test_a_client_is_sent_away_until_the_next_probe(fleet: Fleet) -> None:
    one, two = fleet.backends
    fail(one, NOW_S)
    fail(two, NOW_S - 5)
    assert turn_of(fleet) == 15
    assert turn_of(fleet, one) == 20
    assert turn_of(fleet, one, now_s=NOW_S + 19.5) == 0.5


def test_while_a_probe_is_under_way_nothing_tells(fleet: Fleet) -> None:
    one, _ = fleet.backends
    fail(one, NOW_S)
    one.reserve(NOW_S + PAUSE_S)
    assert turn_of(fleet, one, now_s=NOW_S + PAUSE_S) == math.inf


def test_the_wait_is_the_load_above_the_limit_divided_by_the_drain_rate(fleet: Fleet) -> None:
    one, two = fleet.backends
    drain(one, per_second=1)
    assert turn_of(fleet, one) == pytest.approx(10.5, abs=0.5)  # ten, and what the rate has decayed
    drain(two, per_second=5)
    assert turn_of(fleet, two) == pytest.approx(2.1, abs=0.1)
    assert turn_of(fleet) == turn_of(fleet, two), "the one that is ready first"


def test_requests_that_come_before_are_drained_by_all_candidates(fleet: Fleet) -> None:
    for backend in fleet.backends:
        drain(backend, per_second=1)
    assert turn_of(fleet, waiting=20) == pytest.approx(turn_of(fleet) + 10, abs=1)


def test_a_queue_that_is_too_long_has_to_drain_only_to_its_limit() -> None:
    waiting = WaitingRule(burst_s=1.0, standing_share=0.2)
    fleet = a_fleet(1, slow_breakers(1000, waiting))
    (backend,) = fleet.backends
    drain(backend, per_second=10, in_flight=102)
    for second in range(-20, 1):
        scrape(backend, 2, 100, own_when_asked=102, now_s=NOW_S + second)
    # Two run, four get their turn in time: nothing else is known, so each takes 0.05 s.
    assert turn_of(fleet) == pytest.approx((102 - 6) / 10, abs=2)


def test_servers_that_have_answered_nothing_for_long_tell_nothing(fleet: Fleet) -> None:
    for backend in fleet.backends:
        fill(backend)
    assert turn_of(fleet) <= 5, "they may be about to"
    assert turn_of(fleet, now_s=NOW_S + 100) > 60


def test_without_a_candidate_nothing_tells() -> None:
    fleet = a_fleet(1, slow_breakers())
    assert turn_s(fleet.view((), NOW_S), 0) == math.inf


def test_a_failing_backend_and_a_full_one_are_compared(fleet: Fleet) -> None:
    one, two = fleet.backends
    drain(one, per_second=1)
    fail(two, NOW_S)
    assert turn_of(fleet) == pytest.approx(10.5, abs=0.5)
    assert turn_of(fleet, now_s=NOW_S + 15) == 5


def test_retry_after_counts_the_clients_that_were_refused_before(fleet: Fleet) -> None:
    for backend in fleet.backends:
        drain(backend, per_second=1)
    told = told_s(fleet, 60)
    for number, each_s in enumerate(told):
        assert each_s == pytest.approx(10.5 + number / 1.9, rel=SPREAD + 0.1)
    at_once = max(told.count(second) for second in set(told))
    assert at_once <= 8, "what is drained in a second is two"


def test_clients_that_are_due_are_away_no_more(fleet: Fleet) -> None:
    for backend in fleet.backends:
        drain(backend, per_second=2)
    told = returns()
    assert statistics.mean(told_s(fleet, 40, told)[30:]) > 12
    for backend in fleet.backends:
        for second in range(int(NOW_S), int(NOW_S) + 100):
            for _ in range(2):
                backend.reserve(second)
                backend.release(second)
    assert told.retry_after_s("m", fleet.view(fleet.backends, NOW_S + 100)) <= 7


def test_retry_after_of_few_refusals_is_the_time_until_a_place_is_free(fleet: Fleet) -> None:
    for backend in fleet.backends:
        drain(backend, per_second=5, in_flight=4)
    assert set(told_s(fleet, 5)) <= {1, 2}


def test_refusals_of_one_model_are_not_before_those_of_another(fleet: Fleet) -> None:
    for backend in fleet.backends:
        drain(backend, per_second=1)
    told = returns()
    assert max(told_s(fleet, 60, told, "busy")) > 30
    assert told_s(fleet, 1, told, "other")[0] < 15


def test_models_whose_clients_have_all_come_back_are_forgotten(fleet: Fleet) -> None:
    told = returns()
    for number in range(1000):
        told.retry_after_s(f"m-{number}", fleet.view(fleet.backends, NOW_S + 61 * number))
    assert len(told._promised) <= 2


def test_the_answer_is_at_most_the_maximum_and_spread_below_it(fleet: Fleet) -> None:
    one, _ = fleet.backends
    drain(one, per_second=1, in_flight=1000)
    told = told_s(fleet, 200)
    assert 55 < max(told) <= 60
    assert max(told.count(second) for second in set(told)) < 25
    assert max(told_s(fleet, 50, returns(max_retry_after_s=7))) <= 7


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
    answer = returns().retry_after_s("m", fleet.view(fleet.backends, NOW_S + later_s))
    assert isinstance(answer, int)
    assert 1 <= answer <= 60


def test_every_refusal_says_what_to_do() -> None:
    for reason in TEXTS:
        message = json.loads(overloaded(reason, 7, CHAT).body)["error"]["message"]
        assert re.search(r"\bRetry|\bretry later", message), reason


@pytest.mark.parametrize("reason", [Reason.SATURATED, Reason.WAIT_TOO_LONG, Reason.FAILING])
def test_an_overload_is_a_503_with_its_reason_and_when_to_come_back(reason: Reason) -> None:
    refusal = overloaded(reason, 7, CHAT)
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
    refusal = unknown_model(model, CHAT)
    error = json.loads(refusal.body)["error"]
    assert refusal.status == 404
    assert error["message"] == f"The model `{model}` does not exist."
    assert (error["type"], error["code"], error["param"]) == ("NotFoundError", 404, "model")
    assert refusal.headers["x-extproc-reason"] == "unknown_model"
    assert "retry-after" not in refusal.headers


def test_a_long_name_is_cut() -> None:
    message = json.loads(unknown_model("z" * 100_000, CHAT).body)["error"]["message"]
    assert message == f"The model `{'z' * 200}…` does not exist."


@pytest.mark.parametrize("api", [MESSAGES, COUNT_TOKENS], ids=lambda api: api.kind)
def test_anthropics_clients_get_errors_in_their_form(api: Api) -> None:
    for refusal, kind in (
        (overloaded(Reason.SATURATED, 7, api), "overloaded_error"),
        (unknown_model("m", api), "not_found_error"),
    ):
        answer = json.loads(refusal.body)
        assert (answer["type"], answer["error"]["type"]) == ("error", kind)
        assert answer["error"]["message"]


@pytest.mark.parametrize(("api", "is_typed"), [(CHAT, False), (MESSAGES, True)])
def test_a_body_that_was_cut_off_is_refused_in_the_form_of_its_api(api: Api, is_typed: bool) -> None:
    core = a_core(endpoints(2))
    refused = core.place(a_request(api=api, is_cut_off=True), Phase.REQUEST_BODY, 1.0).instruction
    assert isinstance(refused, Reject)
    assert (refused.status, refused.headers["x-extproc-reason"]) == (400, "cut_off")
    document = json.loads(refused.body)
    assert document["error"]["type"] == "invalid_request_error"
    assert ("type" in document) == is_typed
