"""Backends that failed and are well again: how soon they get traffic, whatever the length of answers."""

from msgspec.structs import replace
from support.build import FAILURES, PAUSE_S, a_core, a_request, core_rules, endpoints, fleet_rules, scrape

from extproc.exchange.messages import Phase, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.backend import Backend
from extproc.outcomes.facts import from_metadata, to_metadata
from extproc.outcomes.outcome import LogEntry
from extproc.request.request import Request
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


def ended(
    core: Core, backend: Backend, asked: Request, status: int, now_s: float, *flags: str, attempts: int = 1
) -> None:
    """Have a request sent to `backend`, and end."""
    placement = core.place(asked, Phase.REQUEST_BODY, now_s)
    assert placement.lease is not None
    assert isinstance(placement.instruction, RouteTo)
    placement.lease.end(now_s)
    facts = from_metadata(placement.instruction.metadata)
    assert facts is not None
    metadata = to_metadata(replace(facts, backend=backend.name))
    core.learn(LogEntry(0.0, 0.1, status, attempts, frozenset(flags), 0, metadata, {}), now_s)


def fail(core: Core, backend: Backend, now_s: float) -> None:
    """Have requests fail there that fail nowhere else."""
    for number in range(FAILURES):
        asked = a_request(path=f"/{backend.name}", body_bytes=number)
        ended(core, backend, asked, 500, now_s)


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


POISON = a_request(prefix=(1, 2, 3), prompt_bytes=2000)


def tripped(core: Core) -> set[str]:
    return {backend.name for backend in core.registry.members if backend.breaker.is_tripped}


def test_a_body_that_fails_on_every_backend_takes_out_none_that_answers_others() -> None:
    core = a_fleet_of(3)
    for number in range(300):
        backend = core.registry.members[number % 3]
        ended(core, backend, POISON, 500, 10.0 + number / 60)
        if number % 60 == 0:
            for healthy in core.registry.members:
                ended(core, healthy, a_request(), 200, 10.0 + number / 60)
        assert not tripped(core)


def test_failures_of_a_tenant_whose_every_body_is_another_are_the_tenants_own() -> None:
    core = a_fleet_of(3)
    for number in range(60):
        asked = a_request(tenant="mallory", body_bytes=number)
        ended(core, core.registry.members[number % 3], asked, 500, 10.0)
    assert not tripped(core)


def test_a_backend_that_fails_alone_is_taken_out_whatever_it_is_sent() -> None:
    core = a_fleet_of(3)
    failing, *healthy = core.registry.members
    for _ in range(FAILURES):
        for backend in healthy:
            ended(core, backend, POISON, 200, 10.0)
        ended(core, failing, POISON, 500, 10.0)
    assert tripped(core) == {failing.name}


def test_where_several_backends_answer_nothing_any_more_they_are_taken_out() -> None:
    core = a_fleet_of(3)
    one, two, healthy = core.registry.members
    for number in range(60 * FAILURES):
        if number % 10 == 0:
            ended(core, healthy, POISON, 200, 10.0)
        for backend in (one, two):
            ended(core, backend, POISON, 500, 10.0)
    assert tripped(core) == {one.name, two.name}


def test_backends_that_cannot_be_reached_are_to_blame_whatever_they_were_sent() -> None:
    core = a_fleet_of(3)
    for backend in core.registry.members:
        for _ in range(FAILURES):
            ended(core, backend, POISON, 503, 10.0, "UF")
    assert len(tripped(core)) == 3


def retry(core: Core, first: Backend, second: Backend, stage: str, *flags: str) -> None:
    tags = {"retry_stage": stage, "retry_first": first.name, "retry_second": second.name}
    core.learn(LogEntry(0.0, None, 0, 1, frozenset(flags), 0, {}, tags), 10.0)


def test_a_request_that_makes_both_attempts_be_dropped_hardly_counts_for_either() -> None:
    core = a_fleet_of(2)
    one, two = core.registry.members
    for _ in range(2 * FAILURES):
        retry(core, one, two, "UpstreamPoolReady")
        retry(core, one, two, "UpstreamEnd", "UC")
    assert not tripped(core)
    for _ in range(10 * FAILURES):
        retry(core, one, two, "UpstreamPoolReady")
        retry(core, one, two, "UpstreamEnd", "UC")
    assert len(tripped(core)) == 2
