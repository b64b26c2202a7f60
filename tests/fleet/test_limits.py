from math import inf

from support.build import fleet_rules

from extproc.fleet.adaptive_limit import AdaptiveRule
from extproc.fleet.fleet_rules import SaturationRule, WaitingRule
from extproc.fleet.kept_promise import REST
from extproc.fleet.limits import LoadLimits

TURN_S = 0.1
FOUND = 16
WAITING = WaitingRule(burst_s=2.0)


def closed_above(*, is_only_places: bool, is_fresh: bool = True, most: int = 500) -> float:
    """The bound before a server whose limit was found to be FOUND, and that says nothing of its places."""
    saturation = SaturationRule(FOUND, adaptive=AdaptiveRule(4, most), is_only_places=is_only_places)
    limits = LoadLimits(fleet_rules(saturation=saturation, waiting=WAITING))
    limits.follow_places(inf, TURN_S)
    return limits.closed_above(FOUND, is_fresh)


def test_beyond_a_limit_that_was_found_as_many_may_wait_as_get_their_turn_in_time() -> None:
    assert closed_above(is_only_places=True) == FOUND - 1 + REST * WAITING.standing_s / TURN_S


def test_with_a_queue_in_the_router_none_waits_beyond_it() -> None:
    assert closed_above(is_only_places=False) < FOUND


def test_none_waits_beyond_it_where_scrapes_say_nothing() -> None:
    assert closed_above(is_only_places=True, is_fresh=False) < FOUND


def test_no_more_are_in_flight_than_the_largest_limit() -> None:
    assert closed_above(is_only_places=True, most=20) == 19


def test_fewer_wait_beyond_it_once_requests_have_waited_longer_than_promised() -> None:
    saturation = SaturationRule(FOUND, adaptive=AdaptiveRule(4, 500), is_only_places=True)
    limits = LoadLimits(fleet_rules(saturation=saturation, waiting=WAITING))
    for _ in range(100):
        limits.waited(WAITING.burst_s + 0.1)
    limits.follow_places(inf, TURN_S)
    assert limits.closed_above(FOUND, is_fresh=True) < FOUND - 1 + REST * WAITING.standing_s / TURN_S
