"""The nuisances that make a simulated world like the real one; by default none.

Each nuisance is an option of `extproc evaluate` and has a number or two; `lab.evaluation.world` makes it.
"""

import math
from dataclasses import dataclass

from extproc.errors import ConfigError

SPEED_PERIOD_S = 10.0
"""Guessed: how long a machine keeps a speed, before `speed_noise` gives it another."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of time of `length_s`, one in each period of `period_s`."""

    period_s: float
    length_s: float


@dataclass(frozen=True, slots=True)
class ColdStart:
    """For `length_s` after its start a server takes `times` as long for everything."""

    length_s: float
    times: float


@dataclass(frozen=True, slots=True)
class Nuisances:
    """`ttft_noise` and `speed_noise` are standard deviations of logarithms.

    The time from sending a request to its first token is multiplied by a number drawn for that request, and a
    machine's speed by one drawn for each SPEED_PERIOD_S. Clients send a request that was refused, or lost
    before its first token, `retries` times again. In the spans of `stalls` a router handles nothing, and all
    of it at the end; in those of `frozen_gauges` a server's metrics say what they said at the first scrape.
    """

    ttft_noise: float = 0.0
    speed_noise: float = 0.0
    retries: int = 0
    stalls: Spans | None = None
    frozen_gauges: Spans | None = None
    cold_start: ColdStart | None = None

    def names(self) -> list[str]:
        """Return those that are there, as their options are written."""
        spans = {"--stalls": self.stalls, "--frozen-gauges": self.frozen_gauges}
        numbers = {
            "--ttft-noise": self.ttft_noise,
            "--speed-noise": self.speed_noise,
            "--retries": self.retries,
        }
        named = [f"{name} {value:g}" for name, value in numbers.items() if value]
        named += [f"{name} {each.period_s:g}:{each.length_s:g}" for name, each in spans.items() if each]
        if (cold := self.cold_start) is not None:
            named.append(f"--cold-start {cold.length_s:g}:{cold.times:g}")
        return named


NO_NUISANCES = Nuisances()


def parse_spans(option: str, text: str) -> Spans:
    """Return the spans of a text PERIOD:LENGTH; raises ConfigError for another, naming the option."""
    period_s, length_s = _two_numbers(option, "PERIOD:LENGTH, in seconds", text)
    if not 0 < length_s < period_s:
        raise ConfigError(f"{option}: the length must be more than 0 and less than the period, not {text!r}")
    return Spans(period_s, length_s)


def parse_cold_start(option: str, text: str) -> ColdStart:
    """Return the cold start of a text SECONDS:TIMES; raises ConfigError for another, naming the option."""
    length_s, times = _two_numbers(option, "SECONDS:TIMES", text)
    if not (length_s > 0 and times >= 1):
        raise ConfigError(f"{option}: more than 0 seconds, and at least 1 times as long, not {text!r}")
    return ColdStart(length_s, times)


def _two_numbers(option: str, form: str, text: str) -> tuple[float, float]:
    try:
        first, second = map(float, text.split(":"))
    except ValueError:
        first = second = math.nan
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ConfigError(f"{option}: expected {form}, not {text!r}")
    return first, second
