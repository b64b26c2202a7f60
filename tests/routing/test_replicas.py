from math import nan

import pytest
from support.build import a_core, a_request, core_rules, endpoints, fleet_rules, scrape

from extproc.exchange.messages import Phase
from extproc.fleet.backend import Backend
from extproc.routing.core import Core
from extproc.routing.replicas import MAX_OPEN, MAX_UNSENT, SILENT_AFTER_S, Report

LONG = 50_000
FLEET = endpoints(2)


def a_replica() -> Core:
    return a_core(FLEET, core_rules(fleet_rules(max_active=100), has_replicas=True))


def send(core: Core, tokens: int, now_s: float) -> Backend:
    placement = core.place(a_request(input_tokens=tokens), Phase.REQUEST_BODY, now_s)
    assert placement.lease is not None
    (chosen,) = [each for each in core.registry.members if placement.lease in each.open]
    return chosen


def tell(core: Core, other: Core, now_s: float) -> list[Report]:
    assert core.replicas is not None
    assert other.replicas is not None
    reports = core.replicas.take()
    other.replicas.heard("10.0.0.1", reports, now_s)
    return reports


def prompts_s(core: Core, name: str, now_s: float) -> float:
    backend = core.registry.backend_named(name)
    assert backend is not None
    return max(0.0, backend.prefilled_at_s - now_s)


def hear(core: Core, names: list[str], tokens: float) -> None:
    """Have one prompt of each of these replicas reported."""
    assert core.replicas is not None
    for name in names:
        core.replicas.heard(name, [Report(1, "vllm-1", tokens)], 0.0)


def heard_s(names: list[str], tokens: float) -> float:
    """The wait behind prompts of these replicas alone."""
    alone = a_replica()
    hear(alone, names, tokens)
    return prompts_s(alone, "vllm-1", 0.0)


def test_a_long_prompt_of_another_sidecar_is_waited_for_nowhere_else_and_is_avoided() -> None:
    core, other = a_replica(), a_replica()
    busy = send(core, LONG, 0.0)
    tell(core, other, 0.0)
    assert prompts_s(other, busy.name, 0.0) == prompts_s(core, busy.name, 0.0) > LONG * busy.pace.token_s
    assert [send(other, 100, 0.0).name == busy.name for _ in range(5)] == [False] * 5


def test_a_report_is_no_load_and_teaches_nothing() -> None:
    core, other = a_replica(), a_replica()
    name = send(core, LONG, 0.0).name
    heard = other.registry.backend_named(name)
    assert heard is not None
    before = heard.own, heard.foreign, heard.pace, heard.places, heard.closed_above
    tell(core, other, 0.0)
    assert (heard.own, heard.foreign, heard.pace, heard.places, heard.closed_above) == before


def test_the_end_of_a_request_takes_back_what_is_left_of_its_prompt() -> None:
    core, other = a_replica(), a_replica()
    placement = core.place(a_request(input_tokens=LONG), Phase.REQUEST_BODY, 0.0)
    assert placement.lease is not None
    tell(core, other, 0.0)
    placement.lease.end(0.1)
    (end,) = tell(core, other, 0.1)
    assert end.backend is None
    assert [prompts_s(other, each.name, 0.1) for each in FLEET] == [0.0, 0.0]


def test_a_request_that_envoy_sends_elsewhere_is_reported_there() -> None:
    core, other = a_replica(), a_replica()
    first = send(core, LONG, 0.0)
    (second,) = [each for each in core.registry.members if each is not first]
    core.router.bookings.move(first, second, 0.1)
    tell(core, other, 0.1)
    assert prompts_s(other, first.name, 0.1) == 0.0
    assert prompts_s(other, second.name, 0.1) == pytest.approx(LONG * second.pace.token_s, rel=0.01)


def test_a_report_that_comes_twice_or_late_counts_once_or_not_at_all() -> None:
    core, other = a_replica(), a_replica()
    name = send(core, LONG, 0.0).name
    (sent,) = tell(core, other, 0.0)
    assert other.replicas is not None
    other.replicas.heard("10.0.0.1", [sent, sent], 0.0)
    assert prompts_s(other, name, 0.0) == prompts_s(core, name, 0.0)
    backend = other.registry.backend_named(name)
    assert backend is not None
    for tenth in range(1, 30):
        scrape(backend, running=1.0, now_s=tenth / 10)
    assert prompts_s(other, name, 2.9) < LONG * 1e-4 - 2.0, "scrapes show that it is being computed"


@pytest.mark.parametrize(
    "report",
    [
        Report(1, "vllm-9", 100.0),
        Report(1, "vllm-1", -1.0),
        Report(1, "vllm-1", 1e30),
        Report(1, "vllm-1", nan),
    ],
)
def test_a_report_that_nothing_can_be_made_of_is_passed_over(report: Report) -> None:
    other = a_replica()
    assert other.replicas is not None
    other.replicas.heard("10.0.0.1", [report, Report(7)], 0.0)
    assert [prompts_s(other, each.name, 0.0) for each in FLEET] == [0.0, 0.0]


def test_what_a_silent_replica_has_reported_is_forgotten() -> None:
    core, other = a_replica(), a_replica()
    name = send(core, LONG, 0.0).name
    tell(core, other, 0.0)
    other.advance(SILENT_AFTER_S)
    assert other.replicas is not None
    assert len(other.replicas) == 1
    assert prompts_s(other, name, SILENT_AFTER_S) > 0.0
    other.advance(SILENT_AFTER_S + 0.1)
    assert len(other.replicas) == 0
    assert prompts_s(other, name, SILENT_AFTER_S) == 0.0


def test_neither_reports_nor_prompts_grow_without_bound() -> None:
    core, other = a_replica(), a_replica()
    assert core.replicas is not None
    assert other.replicas is not None
    (backend, _) = core.registry.members
    one_s = heard_s(["10.0.0.1"], 1.0)
    for number in range(MAX_UNSENT + MAX_OPEN):
        core.replicas.sent(number, backend, 1.0)
        other.replicas.heard("10.0.0.1", [Report(number, "vllm-1", 1.0)], 0.0)
    assert [core.replicas.take()[0].number, core.replicas.take()] == [MAX_OPEN, []]
    assert prompts_s(other, "vllm-1", 0.0) == pytest.approx(MAX_OPEN * one_s)


def test_equal_numbers_of_two_replicas_are_two_prompts() -> None:
    other = a_replica()
    hear(other, ["10.0.0.1", "10.0.0.2"], 1000.0)
    one_s = heard_s(["10.0.0.1"], 1000.0)
    assert prompts_s(other, "vllm-1", 0.0) == pytest.approx(2 * one_s)
    assert other.replicas is not None
    other.replicas.heard("10.0.0.1", [Report(1)], 0.0)
    assert prompts_s(other, "vllm-1", 0.0) == pytest.approx(one_s)
