import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.simulated_server import Server
from extproc.lab.rivals.oracle import Oracle, first_token_at, not_before_s
from extproc.lab.rivals.policy import Candidate
from extproc.lab.traffic.arrivals import Arrival

FLEET = "a100-8b*1:8:16384,a100-8b*0.5:4:16384,l4-8b*1:2:16384,a100-8b*1:8:16384:3"
KINDS = [tuple(range(kind, kind + 200)) for kind in (0, 1000)]
"""Two long beginnings that prompts may share."""

requests = st.builds(
    lambda gap_s, prompt, output, kind: (gap_s, Arrival(0.0, prompt, output, KINDS[kind][: prompt // 16])),
    st.floats(0.0, 0.5),
    st.integers(1, 5000),
    st.integers(1, 60),
    st.integers(0, 1),
)


def busy_servers(sent: list[tuple[float, Arrival]]) -> tuple[list[Server], float]:
    """Return servers that were sent these in turns, so long after each other, and the time after the last."""
    servers = [Server(spec) for spec in parse_fleet(FLEET)]
    now_s = 0.0
    for number, (gap_s, request) in enumerate(sent):
        now_s += gap_s
        for server in servers:
            while server.run_ends_s is not None and server.run_ends_s < now_s:
                server.end_run(server.run_ends_s)
        server = servers[number % len(servers)]
        server.submit(str(number), request.prompt_tokens, request.output_tokens, now_s, request.content)
    return servers, now_s


@given(st.lists(requests, max_size=30), requests)
@settings(max_examples=60, deadline=None)
def test_only_backends_that_cannot_be_the_earliest_are_not_tried(
    sent: list[tuple[float, Arrival]], asked: tuple[float, Arrival]
) -> None:
    servers, now_s = busy_servers(sent)
    _, request = asked
    oracle = Oracle(servers)
    ahead = list(oracle._ahead)
    overheads_s = [server.overhead_s(request.prompt_tokens) for server in servers]
    truths_s = [
        first_token_at(server, request, now_s, math.inf) + overhead_s
        for server, overhead_s in zip(ahead, overheads_s, strict=True)
    ]
    for server, truth_s in zip(ahead, truths_s, strict=True):
        assert not_before_s(server, request, now_s) <= truth_s + 1e-9
    chosen = oracle.choose(-1, request, [Candidate(number) for number in range(len(servers))], now_s)
    assert chosen is not None
    assert truths_s[chosen] == pytest.approx(min(truths_s), abs=1e-9)
