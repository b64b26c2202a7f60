import random

from extproc.fleet.kept_promise import LATE, LEAST_SHARE, REST, KeptPromise


def after(outcomes: list[bool]) -> float:
    """The share after requests that were late, or not."""
    promise = KeptPromise()
    for is_late in outcomes:
        promise.waited(is_late=is_late)
    return promise.share


def test_late_requests_lower_the_share_but_never_close_the_server() -> None:
    assert LEAST_SHARE < after([True]) < REST
    assert after([True] * 1000) == LEAST_SHARE


def test_requests_in_time_raise_it_up_to_all_that_is_allowed() -> None:
    assert REST < after([False]) < 1.0
    assert after([False] * 1000) == 1.0


def test_it_settles_where_few_are_late() -> None:
    """Before a server where the share of late requests grows with what is let in."""
    rng, promise, late = random.Random(1), KeptPromise(), 0
    for number in range(20_000):
        is_late = rng.random() < 0.1 * promise.share**3
        promise.waited(is_late=is_late)
        late += is_late and number >= 10_000
    assert 0.5 * LATE < late / 10_000 < 2 * LATE


def test_what_was_learned_in_a_bad_moment_is_forgotten() -> None:
    promise = KeptPromise()
    for _ in range(20):
        promise.waited(is_late=True)
    promise.forget(600.0)
    assert abs(promise.share - REST) < 0.01
    promise.forget(float("inf"))
    assert promise.share == REST
