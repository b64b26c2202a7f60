import pytest

from benchmarks.limits import server_of
from extproc.lab.evaluation.fleet_text import parse_fleet


def seconds_of(pace: float) -> float:
    (spec,) = parse_fleet("a100-8b*1:8")
    server = server_of(lambda _: pace)(spec)
    server.submit("0", 1000, 100, 0.0)
    ended_s = 0.0
    while server.run_ends_s is not None:
        ended_s = server.run_ends_s
        server.end_run(ended_s)
    return ended_s


def test_a_machine_at_half_its_pace_takes_twice_as_long():
    assert seconds_of(0.5) == pytest.approx(2 * seconds_of(1.0), rel=1e-6)
