from support.build import a_core, a_request, an_endpoint, core_rules, endpoints, fleet_rules, scrape

from extproc.exchange.messages import Phase
from extproc.fleet.backend import Backend
from extproc.fleet.slow_start import ENOUGH, LONGEST_S, MAX_PAUSE_S, MIN_PAUSE_S
from extproc.routing.core import Core

NOW_S = 1000.0
RULES = core_rules(fleet_rules(max_active=100))


def place(core: Core, count: int, now_s: float) -> dict[str, int]:
    """Place requests that do not end; returns what each server has in flight."""
    for _ in range(count):
        assert core.place(a_request(), Phase.REQUEST_BODY, now_s).lease is not None
    return {backend.name: backend.own for backend in core.registry.members}


def a_fleet_with_a_newcomer() -> tuple[Core, Backend]:
    """Two servers that have long been there, with ten requests each, and one that has just joined."""
    core = a_core(endpoints(2), RULES, now_s=0.0)
    core.advance(NOW_S - 1)
    place(core, 20, NOW_S - 1)
    core.set_members(endpoints(3), NOW_S, endpoints(3))
    newcomer = core.registry.members[-1]
    return core, newcomer


def test_a_newcomer_gets_one_request_until_it_has_answered() -> None:
    core, newcomer = a_fleet_with_a_newcomer()
    assert place(core, 9, NOW_S) == {"vllm-1": 14, "vllm-2": 14, "vllm-3": 1}
    newcomer.answered()
    assert place(core, 9, NOW_S)["vllm-3"] == 2


def test_its_window_doubles_with_each_second_in_which_its_counters_grow() -> None:
    core, newcomer = a_fleet_with_a_newcomer()
    place(core, 1, NOW_S)
    for tenth in range(31):
        scrape(newcomer, running=1, now_s=NOW_S + tenth / 10, generation_tokens_total=float(tenth))
    assert place(core, 20, NOW_S + 3.0)["vllm-3"] == 8


def test_its_window_does_not_grow_while_it_computes_nothing() -> None:
    core, newcomer = a_fleet_with_a_newcomer()
    place(core, 1, NOW_S)
    for second in range(20):
        scrape(newcomer, running=1, now_s=NOW_S + second, generation_tokens_total=5.0)
    assert place(core, 20, NOW_S + 20.0)["vllm-3"] == 1


def test_after_a_while_it_is_new_no_more_without_metrics_too() -> None:
    core, _ = a_fleet_with_a_newcomer()
    core.advance(NOW_S + LONGEST_S)
    assert place(core, 10, NOW_S + LONGEST_S)["vllm-3"] > 2


def test_a_fleet_of_newcomers_takes_a_burst_at_once_and_evenly() -> None:
    core = a_core(endpoints(3), RULES, now_s=NOW_S)
    assert place(core, 60, NOW_S) == {"vllm-1": 20, "vllm-2": 20, "vllm-3": 20}


def test_a_newcomer_takes_what_the_others_have_no_room_for() -> None:
    core, newcomer = a_fleet_with_a_newcomer()
    for backend in core.registry.members[:2]:
        backend.limits.full_above = backend.closed_above = 9
    assert place(core, 5, NOW_S)["vllm-3"] == 5
    assert newcomer.own == 5


def test_one_that_turns_a_request_away_pauses_and_then_has_a_window() -> None:
    core = a_core(endpoints(2), RULES, now_s=NOW_S)
    one, other = core.registry.members
    one.turned_away(None, NOW_S)
    assert place(core, 2, NOW_S) == {"vllm-1": 0, "vllm-2": 2}
    assert one.is_pausing(NOW_S)
    assert not one.is_pausing(NOW_S + MIN_PAUSE_S)
    assert place(core, 1, NOW_S + MIN_PAUSE_S)["vllm-1"] == 1
    assert other.own == 2


def test_repeated_pauses_double_and_an_answer_begins_anew() -> None:
    core = a_core(endpoints(1), RULES, now_s=0.0)
    (backend,) = core.registry.members
    now_s, pauses = NOW_S, []
    for _ in range(8):
        backend.turned_away(None, now_s)
        backend.turned_away(None, now_s)  # sent at the same time as the first: no reason to wait longer
        pauses.append(backend._averages.watched.starting[backend].begins_at_s - now_s)
        now_s += pauses[-1]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0]
    backend.answered()
    backend.turned_away(None, now_s)
    assert backend.is_pausing(now_s + 0.9 * MIN_PAUSE_S)
    assert not backend.is_pausing(now_s + MIN_PAUSE_S)


def test_a_pause_is_as_long_as_the_server_asks_for_within_bounds() -> None:
    core = a_core([an_endpoint()], RULES, now_s=0.0)
    (backend,) = core.registry.members
    backend.turned_away(3.0, NOW_S)
    assert backend.is_pausing(NOW_S + 2.9)
    assert not backend.is_pausing(NOW_S + 3.0)
    backend.turned_away(3600.0, NOW_S + 3.0)
    assert not backend.is_pausing(NOW_S + 3.0 + MAX_PAUSE_S)


def test_where_all_turn_requests_away_all_are_asked_and_none_is_refused() -> None:
    core = a_core(endpoints(2), RULES, now_s=NOW_S)
    for backend in core.registry.members:
        backend.turned_away(60.0, NOW_S)
    assert place(core, 2, NOW_S) == {"vllm-1": 1, "vllm-2": 1}


def test_a_busy_one_that_turns_a_request_away_keeps_half_of_what_it_had() -> None:
    core = a_core(endpoints(2), RULES, now_s=NOW_S)
    one, _ = core.registry.members
    for _ in range(8):
        one.reserve(NOW_S)
    one.turned_away(None, NOW_S)
    for _ in range(6):
        one.release(NOW_S)
    assert core.fleet.view([one], NOW_S + 1).watched.starting[one].window == 4.0


def test_one_that_comes_back_after_refused_scrapes_has_a_window() -> None:
    core = a_core(endpoints(2), RULES, now_s=0.0)
    core.advance(NOW_S)
    one, _ = core.registry.members
    one.scrape_refused(NOW_S)
    scrape(one, now_s=NOW_S + 1)
    assert core.fleet.view([one], NOW_S + 1).watched.starting[one].window < ENOUGH
