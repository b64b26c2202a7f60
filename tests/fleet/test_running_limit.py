from math import inf

from extproc.fleet.running_limit import TURNOVER, RunningLimit


def after(*scrapes: tuple[float, float, float, int], limit: float = inf) -> float:
    """The limit after scrapes of running, waiting, the fewest of our own, and how many of ours had ended."""
    learned = RunningLimit(limit)
    for scrape in scrapes:
        learned.seen(*scrape)
    return learned.limit


def test_the_limit_is_the_number_that_runs_while_requests_wait_in_the_engine_and_others_end() -> None:
    assert after((8, 3, 0, 5), (8, 2, 0, 5 + TURNOVER)) == 8


def test_requests_stuck_before_the_engine_show_the_limit_as_well() -> None:
    assert after((8, 0, 20, 5), (8, 0, 20, 5 + TURNOVER)) == 8


def test_a_queue_behind_a_long_prompt_shows_a_limit_only_until_it_is_gone() -> None:
    queue = ((2, 1, 3, 5), (3, 1, 3, 5), (3, 1, 3, 6))
    assert after(*queue) == 3
    assert after(*queue, (3, 0, 3, 7)) == inf


def test_a_moment_without_a_queue_begins_the_observation_anew() -> None:
    assert after((2, 1, 0, 5), (3, 0, 0, 6), (3, 1, 0, 7), (3, 1, 0, 8), (3, 0, 0, 9)) == inf


def test_the_most_that_ran_during_the_queue_counts() -> None:
    assert after((2, 1, 0, 5), (7, 4, 0, 6), (8, 3, 0, 6), (5, 6, 0, 7)) == 8


def test_many_places_are_believed_only_after_a_share_of_them_was_freed_while_no_more_ran() -> None:
    learned = RunningLimit()
    for running, ended in ((200, 0), (198, 20), (201, 24), (199, 48)):
        learned.seen(running, 3, 0, ended)
        assert not learned.is_sure
    learned.seen(201, 3, 0, 50)
    assert learned.is_sure
    assert learned.limit == 201


def test_a_queue_without_running_requests_shows_no_limit() -> None:
    assert after((0, 3, 20, 0), (0, 3, 20, 9)) == inf


def test_a_known_limit_grows_to_the_number_that_ran_and_never_shrinks() -> None:
    assert after((12, 0, 0, 0), (2, 5, 0, 1), (2, 5, 0, 9), limit=8) == 12
