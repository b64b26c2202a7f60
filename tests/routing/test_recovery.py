"""Backends that failed and are well again: how soon they get traffic, whatever the length of answers."""

from msgspec.structs import replace
from support.build import FAILURES, PAUSE_S, a_core, a_request, core_rules, endpoints, fleet_rules, scrape

from extproc.exchange.messages import Phase, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.backend import Backend
from extproc.outcomes.facts import from_metadata, to_metadata
from extproc.outcomes.outcome import LogEntry
from extproc.routing.core import Core

RULES = core_rules(fleet_rules(max_active=10, resume_load=9))


def a_fleet_of(count: int) -> Core:
    return a_core(endpoints(count), RULES)


def place(core: Core, now_s: float) -> Placement:
    return core.place(a_request(), Phase.REQUEST_BODY, now_s)


def cluster(placement: Placement) -> str:
    assert isinstance(placement.instruction, RouteTo)
    return placement.instruction.cluster


def scraped(core: Core, now_s: float) -> None:
    """Each server runs what was sent to it."""
    for backend in core.registry.members:
        scrape(backend, running=backend.own, now_s=now_s)


def fail(core: Core, backend: Backend, now_s: float) -> None:
    for number in range(FAILURES):
        placement = core.place(a_request(body_bytes=number), Phase.REQUEST_BODY, now_s - 1.0)
        assert placement.lease is not None
        assert isinstance(placement.instruction, RouteTo)
        placement.lease.end(now_s)
        facts = from_metadata(placement.instruction.metadata)
        assert facts is not None
        metadata = to_metadata(replace(facts, backend=backend.name))
        core.learn(LogEntry(0.0, 0.1, 500, 1, frozenset(), 0, metadata, {}), now_s)


def test_a_server_that_was_restarted_gets_its_share_while_the_first_long_answer_goes_on() -> None:
    core = a_fleet_of(2)
    backend, other = core.registry.members
    for _ in range(8):
        other.reserve(9.0)
    for tenth in range(10):
        backend.scrape_refused(10.0 + tenth / 10)
    scraped(core, 12.0)
    assert cluster(place(core, 12.0)) == "vllm-1"
    assert cluster(place(core, 12.1)) == "vllm-2", "one probe at a time"
    for tenth in range(1, 12):
        scraped(core, 12.0 + tenth / 10)
    for _ in range(5):
        place(core, 13.2)
    assert backend.own >= 5


def test_with_two_of_three_out_after_an_attack_no_request_is_refused_while_they_have_room() -> None:
    core = a_fleet_of(3)
    one, two, three = core.registry.members
    scraped(core, 10.0)
    fail(core, one, 10.0)
    fail(core, two, 10.0)
    assert {cluster(place(core, 10.0)) for _ in range(10)} == {"vllm-3"}
    now_s = 10.0 + PAUSE_S
    scraped(core, now_s)
    clusters = [cluster(place(core, now_s)) for _ in range(20)]
    assert three.own == 10
    assert one.own + two.own == 20
    assert clusters.count("vllm-1_endpoint") + clusters.count("vllm-2_endpoint") == 18, "but the two probes"


def test_a_server_that_goes_on_failing_gets_no_more_than_a_request_at_a_time_from_a_full_fleet() -> None:
    core = a_fleet_of(2)
    failing, _ = core.registry.members
    scraped(core, 10.0)
    fail(core, failing, 10.0)
    for _ in range(10):
        place(core, 10.0)
    placed = 0
    for tenth in range(1, 51):
        now_s = 10.0 + tenth / 10
        scraped(core, now_s)
        placement = place(core, now_s)
        if isinstance(placement.instruction, RouteTo):
            placed += 1
            assert placement.lease is not None
            placement.lease.end(now_s)
            log = LogEntry(0.0, 0.1, 500, 1, frozenset(), 0, placement.instruction.metadata, {})
            core.learn(log, now_s)
    assert 1 <= placed <= 5, "once a pause"
