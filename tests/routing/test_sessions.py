"""Sessions in the decision: a preference in seconds, which neither the guard nor the books believe."""

from support.build import a_core, a_request, core_rules, endpoints, fleet_rules

from extproc.exchange.messages import Phase, RouteTo
from extproc.exchange.placement import Placement
from extproc.outcomes.facts import from_metadata
from extproc.routing.core import Core

NOW_S = 10.0
TOKENS = 5000


def a_fleet() -> Core:
    return a_core(endpoints(4), core_rules(fleet_rules(max_active=50)), seed=3)


def place(core: Core, session: int = 1, **changes: object) -> Placement:
    asked = a_request(session=session, input_tokens=TOKENS, **changes)
    return core.place(asked, Phase.REQUEST_BODY, NOW_S)


def routed(placement: Placement) -> RouteTo:
    assert isinstance(placement.instruction, RouteTo)
    return placement.instruction


def finish(placement: Placement) -> None:
    assert placement.lease is not None
    placement.lease.end(NOW_S)


def turn(core: Core, session: int = 1, **changes: object) -> str:
    """Place one turn, and end it."""
    placement = place(core, session, **changes)
    finish(placement)
    return routed(placement).cluster


def test_the_turns_of_a_session_stay_together_and_sessions_are_spread() -> None:
    core = a_fleet()
    homes = {session: {turn(core, session) for _ in range(5)} for session in range(1, 41)}
    assert all(len(home) == 1 for home in homes.values())
    assert len(set.union(*homes.values())) == 4
    assert core.router.counts.followed_sessions == 40 * 4


def test_a_home_that_is_more_crowded_than_its_cache_is_worth_is_left() -> None:
    core = a_fleet()
    home = core.registry.backend_named(turn(core))
    assert home is not None
    worth_s = TOKENS * home.pace.token_s
    home.expect_prompt("the crowd", 0.8 * worth_s / home.pace.token_s, NOW_S)
    assert turn(core) == home.name
    home.expect_prompt("more of it", 0.8 * worth_s / home.pace.token_s, NOW_S)
    assert turn(core) != home.name


def test_a_session_is_believed_by_neither_the_books_nor_the_record() -> None:
    core = a_fleet()
    turn(core)
    second = place(core)
    home = core.registry.backend_named(routed(second).cluster)
    assert home is not None
    assert home.prefilled_at_s - NOW_S >= 0.99 * TOKENS * home.pace.token_s, "all of the prompt is booked"
    facts = from_metadata(routed(second).metadata)
    assert facts is not None
    assert facts.expected_cached_tokens == 0.0
    assert core.router.counts.expected_cached_tokens == 0.0


def test_sessions_with_the_same_beginning_share_it() -> None:
    core = a_fleet()
    prefix = {"prefix": (1, 2, 3, 4, 5), "prompt_bytes": 2560}
    homes = {turn(core, session, **prefix) for session in range(1, 11)}
    assert len(homes) == 1, "the cache holds the text, whatever the session"
    assert core.router.counts.followed_sessions == 0
