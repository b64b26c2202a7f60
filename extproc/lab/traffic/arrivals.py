"""When requests arrive, at any scale: a stream of arrivals that is never held in memory as a whole.

A Poisson process whose rate follows a curve is made by thinning one at the curve's peak rate: each arrival of
that is kept with the probability `rate / peak rate` (Lewis and Shedler, 1979). Recorded requests are in
`lab.traffic.trace`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from extproc.lab.traffic.workload import Tokens, Workload

Floats = npt.NDArray[np.float64]

_BLOCK = 1024


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """One request: when it comes, in seconds from the start, how long it is, and for whom.

    `content` is as in `Engine.submit`, in blocks of DEFAULT_BLOCK_SIZE. `session` is the number of the
    conversation of which it is a turn, 0 without one; `adapter` that of the adapter that it is for.
    """

    at_s: float
    prompt_tokens: int
    output_tokens: int
    content: Sequence[int] = ()
    priority: int = 0
    tenant: str = ""
    session: int = 0
    adapter: int = 0


class Traffic(Protocol):
    """One arrival."""

    def arrivals(self, rng: np.random.Generator) -> Iterator[Arrival]:
        """Yield all requests, in the order in which they come."""


@dataclass(frozen=True, slots=True)
class Steady:
    """The same rate all the time."""

    @property
    def peak(self) -> float:
        """The mean."""
        return 1.0

    def at(self, at_s: Floats) -> Floats:
        """Return the mean everywhere."""
        return np.ones_like(at_s)


@dataclass(frozen=True, slots=True)
class Bursts:
    """Every `period_s` there are `burst_s` at `height` times the mean; in between it is so much less."""

    height: float
    period_s: float
    burst_s: float

    @property
    def peak(self) -> float:
        """The height of a burst."""
        return self.height

    def at(self, at_s: Floats) -> Floats:
        """Return `height` within a burst, with which each period ends."""
        share = self.burst_s / self.period_s
        between = (1 - self.height * share) / (1 - share)
        return np.where(at_s % self.period_s >= self.period_s - self.burst_s, self.height, between)


@dataclass(frozen=True, slots=True)
class Daily:
    """A sine around the mean: `swing` (0 to 1) up and down, once in `period_s`, with the trough first."""

    swing: float
    period_s: float

    @property
    def peak(self) -> float:
        """The rate at noon."""
        return 1 + self.swing

    def at(self, at_s: Floats) -> Floats:
        """Return the sine at some times."""
        result: Floats = 1 - self.swing * np.sin(2 * math.pi * at_s / self.period_s)
        return result


Curve = Steady | Bursts | Daily
"""The rate around its mean, which is 1: `at` some times, and at its `peak`."""


@dataclass(frozen=True, slots=True)
class OpenLoopTraffic:
    """Poisson arrivals at `rate` requests per second on average; none waits for an earlier answer."""

    curve: Curve
    rate: float
    duration_s: float
    lengths: Workload
    max_model_len: int

    def arrivals(self, rng: np.random.Generator) -> Iterator[Arrival]:
        """Yield the requests of `duration_s`."""
        return chain.from_iterable(self._blocks(rng))

    def _blocks(self, rng: np.random.Generator) -> Iterator[Iterator[Arrival]]:
        for times_s in _blocks_of_times(self.curve, self.rate, self.duration_s, rng):
            prompts, outputs = self.lengths.draw(rng, len(times_s), self.max_model_len)
            yield _zipped(times_s, prompts, outputs)


def times_of(curve: Curve, rate: float, duration_s: float, rng: np.random.Generator) -> Iterator[float]:
    """Yield the times of a Poisson process at `rate` per second on average, following the curve."""
    for times_s in _blocks_of_times(curve, rate, duration_s, rng):
        yield from times_s.tolist()


def _blocks_of_times(
    curve: Curve, rate: float, duration_s: float, rng: np.random.Generator
) -> Iterator[Floats]:
    begin_s = 0.0
    while begin_s < duration_s:
        times_s = begin_s + np.cumsum(rng.exponential(1 / (rate * curve.peak), _BLOCK))
        begin_s = float(times_s[-1])
        kept = rng.random(_BLOCK) * curve.peak < curve.at(times_s)
        yield times_s[kept & (times_s < duration_s)]


def _zipped(at_s: Floats, prompts: Tokens, outputs: Tokens) -> Iterator[Arrival]:
    return map(Arrival, at_s.tolist(), prompts.tolist(), outputs.tolist())
