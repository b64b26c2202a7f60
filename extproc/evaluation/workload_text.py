"""A workload as text: `ARRIVALS prompt=LENGTHS output=LENGTHS for=SECONDS`, or `trace:FILE`.

Arrivals are `poisson:RATE`, `bursts:RATE:HEIGHT:PERIOD_S:BURST_S` or `daily:RATE:SWING:PERIOD_S`; a rate is
in requests per second, or with an x behind it in shares of what the fleet can answer. A named workload may be
followed by `@LOAD`, which is such a share.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from extproc.errors import ConfigError
from extproc.simulation.arrivals import Bursts, Curve, Daily, Floats, OpenLoop, Replay, Steady, Traffic
from extproc.simulation.workload import LENGTH_COLUMNS, MAX_RATE, ReadTable, Tokens, Workload, parse_lengths

DEFAULT_LOAD = "0.7"
_LENGTHS = "prompt=lognormal:250:0.9 output=lognormal:64:0.5"
WORKLOADS: Mapping[str, str] = {
    "chat": f"poisson:LOADx {_LENGTHS} for=300",
    "two-class": "poisson:LOADx prompt=mix:100:4000:0.1 output=lognormal:64:0.5 for=300",
    "bursts": f"bursts:LOADx:2.5:30:6 {_LENGTHS} for=300",
    "daily": f"daily:LOADx:0.6:300 {_LENGTHS} for=600",
}

MAX_DURATION_S = 30 * 24 * 3600.0

ReadTrace = Callable[[str], tuple[Floats, Tokens, Tokens]]
"""Reads the times, prompts and outputs of a trace's file, sorted by time."""

_EXPECTED = (
    f"workload: expected {', '.join(WORKLOADS)}, each with @LOAD if not {DEFAULT_LOAD}, trace:FILE, or "
    "poisson:RATE, bursts:RATE:HEIGHT:PERIOD_S:BURST_S or daily:RATE:SWING:PERIOD_S, followed by "
    "prompt=LENGTHS output=LENGTHS for=SECONDS"
)


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """A workload before the fleet is known; with `is_relative` the rate is a share of its capacity."""

    curve: Curve
    rate: float
    is_relative: bool
    duration_s: float
    lengths: Workload

    def traffic(self, max_model_len: int, capacity_per_s: float) -> Traffic:
        """What arrives at a fleet with this context and capacity."""
        rate = self.rate * capacity_per_s if self.is_relative else self.rate
        return OpenLoop(self.curve, rate, self.duration_s, self.lengths, max_model_len)


@dataclass(frozen=True, slots=True, eq=False)
class TraceSpec:
    """A recorded trace; its lengths are a workload too, for the fleet's capacity."""

    at_s: Floats
    prompt_tokens: Tokens
    output_tokens: Tokens
    lengths: Workload

    @property
    def duration_s(self) -> float:
        """The time of the last request."""
        return float(self.at_s[-1])

    def traffic(self, max_model_len: int, capacity_per_s: float) -> Traffic:
        """The trace as it is, whatever the fleet can answer."""
        return Replay(self.at_s, self.prompt_tokens, self.output_tokens, max_model_len)


def parse_workload(text: str, read_table: ReadTable, read_trace: ReadTrace) -> WorkloadSpec | TraceSpec:
    """The workload of a name or of a text; raises ConfigError, saying what is expected."""
    if text.startswith("trace:"):
        return _trace(text.removeprefix("trace:"), read_table, read_trace)
    name, _, load = text.partition("@")
    if name in WORKLOADS:
        text = WORKLOADS[name].replace("LOAD", load or DEFAULT_LOAD)
    arrivals, *options = text.split() or [""]
    values = dict(option.split("=", 1) for option in options if "=" in option)
    if set(values) != {"prompt", "output", "for"} or len(values) != len(options):
        raise ConfigError(f"{_EXPECTED}, not {text!r}")
    parsed = _arrivals(arrivals)
    duration_s = _number(values["for"])
    if parsed is None or not 0 < duration_s <= MAX_DURATION_S:
        raise ConfigError(f"{_EXPECTED}, not {text!r}")
    prompt, output = (
        parse_lengths(values[key], column, read_table)
        for key, column in zip(("prompt", "output"), LENGTH_COLUMNS, strict=True)
    )
    return WorkloadSpec(*parsed, duration_s, Workload(prompt, output))


def _trace(name: str, read_table: ReadTable, read_trace: ReadTrace) -> TraceSpec:
    lengths = Workload(*(parse_lengths(f"csv:{name}", column, read_table) for column in LENGTH_COLUMNS))
    return TraceSpec(*read_trace(name), lengths)


def _arrivals(text: str) -> tuple[Curve, float, bool] | None:
    kind, _, rest = text.partition(":")
    rate_text, *shape = rest.split(":")
    rate, numbers = _number(rate_text.removesuffix("x")), [_number(each) for each in shape]
    curve: Curve | None = None
    match kind, numbers:
        case "poisson", []:
            curve = Steady()
        case "bursts", [height, period_s, burst_s] if 0 < burst_s < period_s and (
            1 <= height <= period_s / burst_s
        ):
            curve = Bursts(height, period_s, burst_s)
        case "daily", [swing, period_s] if 0 <= swing <= 1 and period_s > 0:
            curve = Daily(swing, period_s)
    return (curve, rate, rate_text.endswith("x")) if curve is not None and 0 < rate <= MAX_RATE else None


def _number(text: str) -> float:
    """NaN, which is in no range, for what is no number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
