"""What outcomes teach of the times at which a backend sends headers and tokens."""

from support.build import a_core, a_request, an_endpoint

from extproc.exchange.messages import Phase, RouteTo
from extproc.fleet.backend import Backend
from extproc.outcomes.facts import FACTS_KEY
from extproc.outcomes.outcome import LogEntry
from extproc.routing.core import Core

MARK = '"expects_headers":true'
"""By it the route `chosen_stream` of envoy.yaml knows streams whose headers it waits for a minute only."""


def placed(core: Core, *, is_stream: bool = True) -> RouteTo:
    placement = core.place(a_request(is_stream=is_stream), Phase.REQUEST_BODY, 1.0)
    assert isinstance(placement.instruction, RouteTo)
    assert placement.lease is not None
    placement.lease.end(1.0)
    return placement.instruction


def learn(core: Core, headers_us: int, **metadata: str) -> Backend:
    tags = {"ttft_us": "300000", "decode_us": "4000000", "headers_us": str(headers_us)}
    told = {**placed(core).metadata, **metadata}
    core.learn(LogEntry(0.0, 5.0, 200, 1, frozenset(), 0, told, tags), 2.0)
    (backend,) = core.registry.members
    return backend


def test_headers_are_expected_of_servers_that_were_seen_to_send_them_early() -> None:
    core = a_core([an_endpoint(1)])
    assert MARK not in placed(core).metadata[FACTS_KEY], "nothing is known yet"
    learn(core, headers_us=2000)
    assert MARK in placed(core).metadata[FACTS_KEY]
    assert MARK not in placed(core, is_stream=False).metadata[FACTS_KEY]
    learn(core, headers_us=299_000)
    assert MARK not in placed(core).metadata[FACTS_KEY]


def test_comments_do_not_make_a_server_look_fast() -> None:
    backend = learn(a_core([an_endpoint(1)]), headers_us=2000, comments_ms="2000")
    assert backend.observed_ttft_s == 2.3
