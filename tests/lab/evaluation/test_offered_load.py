import pytest
from support.evaluated_scenarios import CONTEXT

from extproc.lab.engine.run import TICK_S
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.offered_load import capacities_per_s, present_capacities_per_s, requests_per_s
from extproc.lab.evaluation.workload_text import WorkloadSpec
from extproc.lab.traffic.arrivals import Steady
from extproc.lab.traffic.workload import Fixed, Workload

SAMPLE = WorkloadSpec(Steady(), 1.0, True, 60.0, Workload(Fixed(100), Fixed(11))).sample


def test_twice_the_speed_is_twice_the_capacity() -> None:
    fast, slow, alike = capacities_per_s(parse_fleet("a100-8b*1:4,2xa100-8b*0.5:4"), SAMPLE, CONTEXT)
    assert fast == pytest.approx(2 * slow)
    assert slow == alike


def test_a_machine_counts_for_as_long_as_it_is_there() -> None:
    specs = parse_fleet("a100-8b*1:4,a100-8b*1:4@30-,a100-8b*1:4!10-25")
    capacities = capacities_per_s(specs, SAMPLE, CONTEXT)
    always, joining, failing = present_capacities_per_s(capacities, specs, duration_s=60.0)
    assert joining == pytest.approx(always / 2)
    assert failing == pytest.approx(always * 3 / 4)


def test_one_at_a_time_takes_as_long_as_its_steps() -> None:
    (spec,) = parse_fleet("a100-8b*1:1")
    step = spec.profile.step_ticks().step
    decoding_ticks = sum(step(0, 1, 100 + number) for number in range(10))
    duration_s = (step(100, 0, 0) + decoding_ticks) * TICK_S
    assert requests_per_s(spec, SAMPLE, CONTEXT) == pytest.approx(1 / duration_s, rel=0.001)
