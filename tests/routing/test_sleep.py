"""A server in vLLM's sleep mode gets nothing, and everything again as soon as it is awake."""

import msgspec
import pytest
from support.build import STALE_AFTER_S, a_core, a_request, endpoints, scrape

from extproc.exchange.messages import Phase, Reject, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.backend import Backend
from extproc.fleet.peers import retry_peers
from extproc.request.request import Request
from extproc.routing.core import Core

ANY = a_request()
BODYLESS = a_request(model=None, has_body=False)


@pytest.fixture
def core() -> Core:
    """Two servers, the first of which sleeps."""
    core = a_core(endpoints(2))
    see(core.fleet.backends[0], is_asleep=True)
    see(core.fleet.backends[1], is_asleep=False)
    return core


def see(backend: Backend, *, is_asleep: bool, now_s: float = 10.0) -> None:
    scrape(backend, now_s=now_s, is_asleep=is_asleep)


def places(core: Core, count: int, request: Request = ANY, now_s: float = 10.1) -> set[str]:
    """The clusters of this many requests, each of which ends at once."""
    found = set()
    for _ in range(count):
        placement = core.place(request, Phase.REQUEST_BODY, now_s)
        assert isinstance(placement.instruction, RouteTo)
        found.add(placement.instruction.cluster.removesuffix("_endpoint"))
        assert placement.lease is not None
        placement.lease.end(now_s)
    return found


@pytest.mark.parametrize("request_", [ANY, BODYLESS], ids=["a chat", "a request without a body"])
def test_a_sleeping_server_gets_nothing(core: Core, request_: Request) -> None:
    assert places(core, 20, request_) == {"vllm-2"}


def test_it_gets_requests_again_when_it_is_awake(core: Core) -> None:
    see(core.fleet.backends[0], is_asleep=False, now_s=11.0)
    assert places(core, 20, now_s=11.1) == {"vllm-1", "vllm-2"}


def test_it_is_no_second_attempt(core: Core) -> None:
    peers = retry_peers(core.registry.members)
    assert [endpoint.name for endpoint in peers["vllm-2"].endpoints] == ["vllm-2"]


def rejected(placement: Placement) -> tuple[int, str]:
    assert isinstance(placement.instruction, Reject)
    return placement.instruction.status, placement.instruction.headers["x-extproc-reason"]


def test_where_all_sleep_the_reason_says_so(core: Core) -> None:
    see(core.fleet.backends[1], is_asleep=True, now_s=10.1)
    for request in (ANY, BODYLESS, msgspec.structs.replace(ANY, wait_limit_s=1.0)):
        placement = core.place(request, Phase.REQUEST_BODY, 10.2)
        assert rejected(placement) == (503, "asleep")


def test_where_the_others_are_full_that_is_the_reason(core: Core) -> None:
    for _ in range(core.fleet.backends[1].limits.max_active):
        core.place(ANY, Phase.REQUEST_BODY, 10.1)
    assert rejected(core.place(ANY, Phase.REQUEST_BODY, 10.1)) == (503, "saturated")


def test_a_server_that_is_not_scraped_any_more_is_not_taken_for_asleep_for_ever(core: Core) -> None:
    core.advance(10.0 + STALE_AFTER_S + 0.1)
    assert places(core, 20, now_s=10.0 + STALE_AFTER_S + 0.1) == {"vllm-1", "vllm-2"}


def test_what_it_had_cached_is_forgotten() -> None:
    core = a_core(endpoints(1))
    (backend,) = core.fleet.backends
    request = a_request(prefix=(1, 2), prompt_bytes=1024, input_tokens=200)
    scrape(backend, now_s=9.0, prompt_tokens_total=0.0)
    core.place(request, Phase.REQUEST_BODY, 9.1)
    assert core.fleet.prefixes.blocks_at(request.prefix) == {backend: 2}
    scrape(backend, now_s=9.5, prompt_tokens_total=200.0, is_asleep=True)
    scrape(backend, now_s=9.6, prompt_tokens_total=200.0)
    assert core.fleet.prefixes.blocks_at(request.prefix) == {}
