import pytest

from extproc.fleet.breaker import Breaker, BreakerRule

RULE = BreakerRule(consecutive_failures=3, min_pause_s=1.0, max_pause_s=4.0, probe_timeout_s=5.0)


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(RULE)


def trip(breaker: Breaker, now_s: float) -> None:
    for _ in range(RULE.consecutive_failures):
        breaker.fail(now_s)


def admits(breaker: Breaker, now_s: float) -> bool:
    return breaker.admits_at_s <= now_s


def test_single_failures_between_successes_never_trip_it(breaker: Breaker) -> None:
    for _ in range(20):
        breaker.fail(0.0)
        breaker.fail(0.0)
        breaker.succeed(0.0)
    assert admits(breaker, 0.0)


def test_consecutive_failures_take_the_backend_out_for_a_pause(breaker: Breaker) -> None:
    trip(breaker, 10.0)
    assert not admits(breaker, 10.9)
    assert admits(breaker, 11.0)


def test_it_is_probed_by_one_request_at_a_time(breaker: Breaker) -> None:
    trip(breaker, 10.0)
    breaker.begin(11.0)
    assert not admits(breaker, 1000.0)


def test_a_good_probe_closes_it(breaker: Breaker) -> None:
    trip(breaker, 10.0)
    breaker.begin(11.0)
    breaker.end(11.5)
    breaker.succeed(11.6)
    assert admits(breaker, 11.6)
    assert not breaker.is_tripped


def test_each_failed_probe_doubles_the_pause_up_to_the_limit(breaker: Breaker) -> None:
    trip(breaker, 0.0)
    now_s, pauses_s = 1.0, []
    for _ in range(4):
        breaker.begin(now_s)
        breaker.end(now_s)
        breaker.fail(now_s)
        pauses_s.append(breaker.admits_at_s - now_s)
        now_s += pauses_s[-1]
    assert pauses_s == [2.0, 4.0, 4.0, 4.0]


def test_failures_of_requests_from_before_the_pause_do_not_prolong_it(breaker: Breaker) -> None:
    trip(breaker, 10.0)
    breaker.fail(10.5)
    assert admits(breaker, 11.0)


def test_a_success_from_before_the_pause_is_only_a_reason_to_probe(breaker: Breaker) -> None:
    trip(breaker, 10.0)
    breaker.succeed(10.2)
    assert admits(breaker, 10.2)
    assert breaker.is_tripped


def test_a_probe_whose_outcome_is_never_reported_is_followed_by_another(breaker: Breaker) -> None:
    trip(breaker, 10.0)
    breaker.begin(11.0)
    breaker.end(12.0)
    assert not admits(breaker, 16.9)
    assert admits(breaker, 17.0)


def test_a_probe_that_the_server_works_on_lets_traffic_flow_before_its_answer_has_ended(
    breaker: Breaker,
) -> None:
    trip(breaker, 10.0)
    breaker.begin(11.0)
    breaker.scraped(11.9, is_working=True)
    assert not admits(breaker, 11.9), "a failure could still be on its way"
    breaker.scraped(12.0, is_working=True)
    assert admits(breaker, 12.0)
    breaker.begin(12.1)
    assert admits(breaker, 12.1)


def test_the_first_failure_after_a_probe_that_seemed_good_doubles_the_pause(breaker: Breaker) -> None:
    trip(breaker, 10.0)
    breaker.begin(11.0)
    breaker.scraped(12.0, is_working=True)
    breaker.fail(12.5)
    assert not admits(breaker, 14.4)
    assert admits(breaker, 14.5)


def test_an_answer_after_a_probe_that_seemed_good_closes_it(breaker: Breaker) -> None:
    trip(breaker, 10.0)
    breaker.begin(11.0)
    breaker.scraped(12.0, is_working=True)
    breaker.succeed(17.0)
    assert not breaker.is_tripped


def test_a_probe_of_which_the_server_shows_nothing_is_followed_by_another(breaker: Breaker) -> None:
    trip(breaker, 10.0)
    breaker.begin(11.0)
    breaker.scraped(15.9, is_working=False)
    assert not admits(breaker, 15.9)
    breaker.scraped(16.0, is_working=False)
    assert admits(breaker, 16.0)
    breaker.begin(16.0)
    assert not admits(breaker, 16.0)


def test_good_scrapes_say_nothing_of_a_backend_that_is_not_probed(breaker: Breaker) -> None:
    trip(breaker, 10.0)
    breaker.scraped(10.9, is_working=True)
    assert not admits(breaker, 10.9)


def test_ten_excused_failures_count_as_one(breaker: Breaker) -> None:
    for _ in range(10 * RULE.consecutive_failures - 1):
        breaker.fail(1.0, is_excused=True)
    assert not breaker.is_tripped
    breaker.fail(1.0, is_excused=True)
    assert breaker.is_tripped


def test_a_probe_whose_failure_is_excused_is_followed_by_another(breaker: Breaker) -> None:
    trip(breaker, 10.0)
    breaker.begin(11.0)
    breaker.end(11.1)
    breaker.fail(11.1, is_excused=True)
    assert admits(breaker, 11.1)
    assert breaker.is_tripped


def test_a_failure_that_is_excused_later_is_taken_back(breaker: Breaker) -> None:
    for _ in range(5 * RULE.consecutive_failures):
        breaker.fail(1.0)
        breaker.excuse()
    assert not breaker.is_tripped
