"""A workload as text: `ARRIVALS prompt=LENGTHS output=LENGTHS for=SECONDS [turns=TURNS]`, or a trace.

With `adapters=COUNT:SKEW` instead of turns each request is for one of this many adapters (see
`lab.traffic.adapters`).

Arrivals are `poisson:RATE`, `bursts:RATE:HEIGHT:PERIOD_S:BURST_S` or `daily:RATE:SWING:PERIOD_S`; a rate is
in requests per second, or with an x behind it in shares of what the fleet can answer. A named workload may be
followed by `@LOAD`, which is such a share.

With `turns=MEAN:PAUSE_S:SHARED_TOKENS:KINDS` the requests are turns of conversations (see
`lab.traffic.conversations`), and `prompt` is what each turn adds.

A trace is `trace:FILE[@LOAD] [for=SECONDS]`; see `lab.evaluation.trace_spec`. The text after the last @ is
a load if it is a number, and belongs to the name of the file otherwise.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice

import numpy as np

from extproc.errors import ConfigError
from extproc.lab.evaluation.trace_spec import MAX_DURATION_S, TraceSpec
from extproc.lab.traffic.adapters import Adapters, AdapterTraffic
from extproc.lab.traffic.arrivals import (
    Arrival,
    Bursts,
    Curve,
    Daily,
    OpenLoopTraffic,
    Steady,
    Traffic,
)
from extproc.lab.traffic.conversations import MAX_KINDS, Conversations, Turns
from extproc.lab.traffic.trace import Trace
from extproc.lab.traffic.workload import (
    LENGTH_COLUMNS,
    MAX_RATE,
    MAX_TOKENS,
    ReadTable,
    Workload,
    parse_lengths,
)

DEFAULT_LOAD = "0.7"
_LENGTHS = "prompt=lognormal:250:0.9 output=lognormal:64:0.5"
WORKLOADS: Mapping[str, str] = {
    "chat": f"poisson:LOADx {_LENGTHS} for=300",
    "two-class": "poisson:LOADx prompt=mix:100:4000:0.1 output=lognormal:64:0.5 for=300",
    "bursts": f"bursts:LOADx:2.5:30:6 {_LENGTHS} for=300",
    "conversations": (
        "poisson:LOADx prompt=lognormal:80:0.8 output=lognormal:120:0.5 for=300 turns=6:20:1000:4"
    ),
    "daily": f"daily:LOADx:0.6:300 {_LENGTHS} for=600",
}

MAX_MODEL_LEN = 8192
"""Guessed: what a model's context holds, where the smallest KV cache of the fleet does not hold less."""
MAX_ADAPTERS = 4096  # guessed: more than any fleet serves
MAX_SKEW = 10.0  # guessed: nearly all requests are for one then
MAX_LOAD = 100.0  # guessed: nothing is learned from a fleet that gets even more
_PATIENCE = 10
"""A sample is given up where it takes this many conversations for each of its requests."""

ReadTrace = Callable[[str], Trace]
"""Reads a trace's file; raises ConfigError where it is none."""

_NUMBER = r"[-+]?[\d.]+(?:e[-+]?\d+)?|[-+]?inf|nan"
_TRACE = re.compile(
    rf"trace:(?P<file>.*?)(?:@(?P<load>{_NUMBER}))?(?:\s+for=(?P<seconds>\S*))?\s*", re.IGNORECASE | re.DOTALL
)

_EXPECTED = (
    f"--workload: expected {', '.join(WORKLOADS)}, each with @LOAD if not {DEFAULT_LOAD}, "
    "trace:FILE[@LOAD] [for=SECONDS], or "
    "poisson:RATE, bursts:RATE:HEIGHT:PERIOD_S:BURST_S or daily:RATE:SWING:PERIOD_S, followed by "
    "prompt=LENGTHS output=LENGTHS for=SECONDS and maybe turns=MEAN:PAUSE_S:SHARED_TOKENS:KINDS "
    "or adapters=COUNT:SKEW"
)


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """A workload before the fleet is known; with `is_relative` the rate is a share of its capacity."""

    curve: Curve
    rate: float
    is_relative: bool
    duration_s: float
    lengths: Workload
    turns: Turns | None = None
    adapters: Adapters | None = None

    @property
    def longest_tokens(self) -> int:
        """The context that it is for, where a fleet has it."""
        return MAX_MODEL_LEN

    def lasts_s(self, capacity_per_s: float) -> float:
        """Return the same time on any fleet."""
        return self.duration_s

    def traffic(self, max_model_len: int, capacity_per_s: float) -> Traffic:
        """Return the traffic of a fleet with this context and capacity."""
        traffic = self._at(self.rate * capacity_per_s if self.is_relative else self.rate, max_model_len)
        return traffic if self.adapters is None else AdapterTraffic(traffic, self.adapters)

    def sample(self, count: int, max_model_len: int, rng: np.random.Generator) -> list[Arrival]:
        """Return some requests, at any time; raises ConfigError where hardly any fits into the context."""
        turns = 1.0 if self.turns is None else self.turns.turns
        once = replace(self, curve=Steady(), duration_s=_PATIENCE * count * turns / self.rate)
        found = list(islice(once._at(self.rate, max_model_len).arrivals(rng), count))
        if len(found) < count:
            raise ConfigError(f"--workload: a context of {max_model_len} tokens is too short for such turns")
        return found

    def _at(self, rate: float, max_model_len: int) -> Traffic:
        if self.turns is None:
            return OpenLoopTraffic(self.curve, rate, self.duration_s, self.lengths, max_model_len)
        return Conversations(
            **asdict(self.turns),
            curve=self.curve,
            rate=rate,
            duration_s=self.duration_s,
            lengths=self.lengths,
            max_model_len=max_model_len,
        )


def parse_workload(text: str, read_table: ReadTable, read_trace: ReadTrace) -> WorkloadSpec | TraceSpec:
    """Return the workload of a name or of a text; raises ConfigError, saying what is expected."""
    if text.startswith("trace:"):
        return _trace(text, read_trace)
    name, _, load = text.partition("@")
    full_text = WORKLOADS[name].replace("LOAD", load or DEFAULT_LOAD) if name in WORKLOADS else text
    arrivals, *options = full_text.split() or [""]
    values = dict(option.split("=", 1) for option in options if "=" in option)
    special = [values.pop(name) for name in ("turns", "adapters") if name in values]
    is_known = set(values) == {"prompt", "output", "for"} and len(values) + len(special) == len(options)
    if not is_known or len(special) > 1:
        raise ConfigError(f"{_EXPECTED}, not {text!r}")
    parsed = _arrivals(arrivals)
    turns = _turns(special[0]) if "turns=" in full_text else None
    adapters = _adapters(special[0]) if "adapters=" in full_text else None
    duration_s = _number(values["for"])
    is_special = turns is not None or adapters is not None
    if parsed is None or not 0 < duration_s <= MAX_DURATION_S or is_special != bool(special):
        raise ConfigError(f"{_EXPECTED}, not {text!r}")
    prompt, output = (
        parse_lengths(values[key], column, read_table)
        for key, column in zip(("prompt", "output"), LENGTH_COLUMNS, strict=True)
    )
    return WorkloadSpec(*parsed, duration_s, Workload(prompt, output), turns, adapters)


def _trace(text: str, read_trace: ReadTrace) -> TraceSpec:
    match = _TRACE.fullmatch(text)
    assert match is not None  # it matches every text that begins so
    load, first_s = (None if match[name] is None else _number(match[name]) for name in ("load", "seconds"))
    if load is not None and not 0 < load <= MAX_LOAD:
        raise ConfigError(
            f"--workload: expected trace:FILE@LOAD with a load up to {MAX_LOAD:g}, not {text!r}"
        )
    if first_s is not None and not 0 < first_s <= MAX_DURATION_S:
        raise ConfigError(f"--workload: expected for=SECONDS, up to {MAX_DURATION_S:.0f}, not {text!r}")
    return TraceSpec(match["file"], read_trace(match["file"]), load, first_s)


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


def _turns(text: str) -> Turns | None:
    numbers = [_number(each) for each in text.split(":")]
    match numbers:
        case [turns, pause_s, shared, kinds] if (
            1 <= turns < math.inf
            and pause_s > 0
            and 0 <= shared <= MAX_TOKENS
            and 1 <= kinds <= MAX_KINDS
            and shared.is_integer()
            and kinds.is_integer()
        ):
            return Turns(turns=turns, pause_s=pause_s, shared_tokens=int(shared), kinds=int(kinds))
    return None


def _adapters(text: str) -> Adapters | None:
    numbers = [_number(each) for each in text.split(":")]
    match numbers:
        case [count, skew] if 1 <= count <= MAX_ADAPTERS and count.is_integer() and 0 <= skew <= MAX_SKEW:
            return Adapters(int(count), skew)
    return None


def _number(text: str) -> float:
    """Return the number; NaN, which is in no range, for other text."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
