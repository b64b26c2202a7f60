import numpy as np

from extproc.fleet.signals import foreign_load, running_now


def test_our_own_requests_are_not_foreign() -> None:
    assert foreign_load(running=6, waiting=2, largest_own=8) == 0.0


def test_load_beyond_our_own_requests_was_sent_by_others() -> None:
    assert foreign_load(running=6, waiting=5, largest_own=4) == 7.0


def test_a_request_that_has_just_ended_is_not_foreign_while_the_server_still_counts_it() -> None:
    assert foreign_load(running=10, waiting=0, largest_own=10) == 0.0


def test_a_burst_that_the_gauge_has_not_seen_is_counted_as_running() -> None:
    assert running_now(running=0, change=40, load=40, limit=np.inf, is_fresh=True) == 40


def test_requests_finished_since_the_scrape_are_taken_off() -> None:
    assert running_now(running=40, change=-30, load=10, limit=np.inf, is_fresh=True) == 10


def test_the_estimate_is_never_below_the_load() -> None:
    assert running_now(running=0, change=0, load=5, limit=np.inf, is_fresh=True) == 5


def test_the_estimate_is_never_above_the_servers_limit() -> None:
    assert running_now(running=32, change=30, load=90, limit=32, is_fresh=True) == 32


def test_a_stale_gauge_is_not_used() -> None:
    assert running_now(running=50, change=2, load=2, limit=np.inf, is_fresh=False) == 2
