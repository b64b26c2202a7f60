from collections.abc import Mapping

import numpy as np
import pytest

from extproc.errors import ConfigError
from extproc.lab.evaluation.fleet_text import FLEETS, parse_fleet
from extproc.lab.evaluation.trace_spec import TraceSpec
from extproc.lab.evaluation.workload_text import WORKLOADS, WorkloadSpec, parse_workload
from extproc.lab.traffic.arrivals import Bursts, Daily, OpenLoopTraffic, Steady
from extproc.lab.traffic.conversations import Conversations
from extproc.lab.traffic.trace import Replay, Trace
from extproc.lab.traffic.workload import Fixed, Tokens

TEXT = "prompt=fixed:100 output=fixed:10 for=60"


def table(_: str) -> Mapping[str, Tokens]:
    return {"prompt_tokens": np.array([100, 200]), "output_tokens": np.array([10, 20])}


def trace(_: str) -> Trace:
    return Trace(np.array([0.0, 7.0]), *table("").values())


def parsed(text: str) -> WorkloadSpec | TraceSpec:
    return parse_workload(text, table, trace)


def test_a_fleet_is_read_machine_by_machine() -> None:
    specs = parse_fleet("2xa100-8b*1:8, l4-8b*0.5:16:4096:20")
    assert [spec.name for spec in specs] == ["sim-1", "sim-2", "sim-3"]
    assert specs[0].profile == specs[1].profile != specs[2].profile
    assert specs[2].profile.speed == 0.5
    assert [spec.limits.max_num_seqs for spec in specs] == [8, 8, 16]
    assert specs[2].limits.kv_cache_tokens == 4096
    assert (specs[0].limits.http_limit, specs[2].limits.http_limit) == (None, 20)
    assert specs[0].limits.kv_cache_tokens == specs[0].profile.kv_cache_tokens


def test_machines_may_come_go_and_fail() -> None:
    specs = parse_fleet("a100-8b*1:8@30-90,a100-8b*1:8@-60,a100-8b*1:8@60-,a100-8b*1:8:4096!10-20")
    assert [(spec.joins_s, spec.leaves_s) for spec in specs] == [(30, 90), (0, 60), (60, None), (0, None)]
    assert (specs[3].fails_s, specs[3].recovers_s) == (10, 20)
    assert [spec.present_share(120) for spec in specs] == pytest.approx([1 / 2, 1 / 2, 1 / 2, 11 / 12])


@pytest.mark.parametrize("name", FLEETS)
def test_every_named_fleet_exists(name: str) -> None:
    assert len(parse_fleet(name)) >= 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abacus*1:8",
        "a100-8b:8",
        "a100-8b*0:8",
        "a100-8b*1:8,",
        "a100-8b*1:0",
        "9999xa100-8b*1:8",
        "a100-8b*1:8@9-5",
        "a100-8b*1:8!5-5",
    ],
)
def test_a_fleet_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_fleet(text)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_named_workload_takes_a_load(name: str) -> None:
    spec, default = parsed(f"{name}@0.95"), parsed(name)
    assert isinstance(spec, WorkloadSpec)
    assert isinstance(default, WorkloadSpec)
    assert (spec.rate, spec.is_relative, default.rate) == (0.95, True, 0.7)


def test_rates_are_absolute_or_shares_of_the_capacity() -> None:
    absolute, relative = (parsed(f"poisson:{rate} {TEXT}").traffic(8192, 40.0) for rate in ("3", "0.5x"))
    assert isinstance(absolute, OpenLoopTraffic)
    assert isinstance(relative, OpenLoopTraffic)
    assert (absolute.rate, relative.rate) == (3.0, 20.0)
    assert (absolute.duration_s, absolute.lengths.prompt) == (60.0, Fixed(100))


@pytest.mark.parametrize(
    ("arrivals", "curve"),
    [("poisson:1", Steady()), ("bursts:1:3:30:6", Bursts(3, 30, 6)), ("daily:1:0.5:60", Daily(0.5, 60))],
)
def test_each_kind_of_arrivals_is_known(arrivals: str, curve: object) -> None:
    spec = parsed(f"{arrivals} {TEXT}")
    assert isinstance(spec, WorkloadSpec)
    assert spec.curve == curve


def test_turns_make_conversations_of_requests() -> None:
    traffic = parsed(f"poisson:0.5x {TEXT} turns=6:20:500:4").traffic(8192, 40.0)
    assert isinstance(traffic, Conversations)
    assert (traffic.rate, traffic.turns, traffic.pause_s) == (20.0, 6.0, 20.0)
    assert (traffic.shared_tokens, traffic.kinds) == (500, 4)


@pytest.mark.parametrize("text", [f"daily:1:0.5:60 {TEXT}", "trace:requests.csv", "conversations"])
def test_every_workload_has_as_many_requests_as_one_asks_for(text: str) -> None:
    sample = parsed(text).sample(500, 8192, np.random.default_rng(0))
    assert len(sample) == 500


def test_turns_that_no_context_holds_are_refused_instead_of_being_drawn_for_ever() -> None:
    spec = parsed(f"poisson:1 {TEXT} turns=3:10:8100:1")
    assert len(spec.sample(500, 8300, np.random.default_rng(0))) == 500
    with pytest.raises(ConfigError, match="8192 tokens"):
        spec.sample(500, 8192, np.random.default_rng(0))


def test_a_refusal_repeats_what_was_written() -> None:
    with pytest.raises(ConfigError, match="not 'chat@many'"):
        parsed("chat@many")


def test_a_trace_lasts_as_long_as_it_lasts() -> None:
    spec = parsed("trace:requests.csv")
    assert spec.lasts_s(1.0) == 7.0
    assert isinstance(spec.traffic(8192, 1.0), Replay)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trace:requests.csv", ("requests.csv", None, None)),
        ("trace:requests.csv@0.7", ("requests.csv", 0.7, None)),
        ("trace:requests.csv@1.2e-1 for=600", ("requests.csv", 0.12, 600.0)),
        ("trace:requests.csv for=0.5", ("requests.csv", None, 0.5)),
        ("trace:my requests/a@b.csv for=60", ("my requests/a@b.csv", None, 60.0)),
        ("trace:a@2.csv@.9", ("a@2.csv", 0.9, None)),
        ("trace:requests.csv@many", ("requests.csv@many", None, None)),
    ],
)
def test_a_trace_has_a_load_and_an_end_where_they_are_written(
    text: str, expected: tuple[str, float | None, float | None]
) -> None:
    spec = parsed(text)
    assert isinstance(spec, TraceSpec)
    assert (spec.name, spec.load, spec.first_s) == expected


@pytest.mark.parametrize(
    "options", ["@0", "@-1", "@nan", "@inf", "@1e9", "@.", "@0.7 for=", "@0.7 for=0", " for=soon", " for=1e9"]
)
def test_a_trace_that_cannot_be_played_so_is_refused(options: str) -> None:
    with pytest.raises(ConfigError, match=rf"workload: expected .*, not 'trace:requests\.csv{options}'"):
        parsed(f"trace:requests.csv{options}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "chats",
        "chat@many",
        "chat@0",
        f"poisson {TEXT}",
        f"poisson:-1 {TEXT}",
        f"poisson:1:2 {TEXT}",
        f"bursts:1:6:30:6 {TEXT}",
        f"bursts:1:0.5:30:6 {TEXT}",
        f"daily:1:1.5:60 {TEXT}",
        "poisson:1 prompt=fixed:1 output=fixed:1",
        "poisson:1 prompt=fixed:1 output=fixed:1 for=0",
        "poisson:1 prompt=fixed:1 output=long for=60",
        f"poisson:1 {TEXT} {TEXT}",
        f"poisson:1 {TEXT} turns=3",
        f"poisson:1 {TEXT} turns=0:10:0:1",
        f"poisson:1 {TEXT} turns=inf:10:0:1",
        f"poisson:1 {TEXT} turns=3:10:0.5:1",
    ],
)
def test_a_workload_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parsed(text)
