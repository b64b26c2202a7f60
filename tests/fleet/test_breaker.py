import pytest
from extproc.fleet.state import BackendState

from extproc.fleet.breaker import BreakerRule, FailureBreakers

RULE = BreakerRule(consecutive_failures=3, min_pause_s=1.0, max_pause_s=4.0, probe_timeout_s=5.0)


@pytest.fixture
def breakers() -> FailureBreakers:
    return FailureBreakers([BackendState(0, medium_load=1.0, closed_above=1.0)], RULE)


def tripped_at(breakers: FailureBreakers, now_s: float) -> None:
    for _ in range(RULE.consecutive_failures):
        breakers.fail(0, now_s)


def admits(breakers: FailureBreakers, now_s: float) -> bool:
    return breakers.next_probe_s([0], now_s) == 0.0


def test_single_failures_between_successes_never_trip_it(breakers: FailureBreakers) -> None:
    for _ in range(20):
        breakers.fail(0, 0.0)
        breakers.fail(0, 0.0)
        breakers.succeed(0, 0.0)
    assert admits(breakers, 0.0)


def test_consecutive_failures_take_the_backend_out_for_a_pause(breakers: FailureBreakers) -> None:
    tripped_at(breakers, 10.0)
    assert not admits(breakers, 10.9)
    assert admits(breakers, 11.0)


def test_it_is_probed_by_one_request_at_a_time(breakers: FailureBreakers) -> None:
    tripped_at(breakers, 10.0)
    breakers.begin(0)
    assert not admits(breakers, 1000.0)


def test_a_good_probe_closes_it(breakers: FailureBreakers) -> None:
    tripped_at(breakers, 10.0)
    breakers.begin(0)
    breakers.end(0, 11.5)
    breakers.succeed(0, 11.6)
    assert admits(breakers, 11.6)
    assert not breakers.is_tripped(0)


def test_each_failed_probe_doubles_the_pause_up_to_the_limit(breakers: FailureBreakers) -> None:
    tripped_at(breakers, 0.0)
    now_s, pauses_s = 1.0, []
    for _ in range(4):
        breakers.begin(0)
        breakers.end(0, now_s)
        breakers.fail(0, now_s)
        pauses_s.append(breakers.next_probe_s([0], now_s))
        now_s += pauses_s[-1]
    assert pauses_s == [2.0, 4.0, 4.0, 4.0]


def test_failures_of_requests_from_before_the_pause_do_not_prolong_it(breakers: FailureBreakers) -> None:
    tripped_at(breakers, 10.0)
    breakers.fail(0, 10.5)
    assert admits(breakers, 11.0)


def test_a_success_from_before_the_pause_is_no_more_than_a_reason_to_probe(breakers: FailureBreakers) -> None:
    tripped_at(breakers, 10.0)
    breakers.succeed(0, 10.2)
    assert admits(breakers, 10.2)
    assert breakers.is_tripped(0)


def test_a_probe_whose_outcome_is_never_reported_is_followed_by_another(breakers: FailureBreakers) -> None:
    tripped_at(breakers, 10.0)
    breakers.begin(0)
    breakers.end(0, 12.0)
    assert not admits(breakers, 16.9)
    assert admits(breakers, 17.0)
