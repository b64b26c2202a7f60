"""The machines of an evaluation, and the nuisances around them.

Their random numbers are their own: the traffic of a seed is the same with any nuisance and without, and each
nuisance is the same with any other.
"""

import math
from collections.abc import Callable

import numpy as np

from extproc.lab.evaluation.nuisances import SPEED_PERIOD_S, Nuisances, Spans
from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.evaluation.scrapes import Exporter
from extproc.lab.evaluation.simulated_server import Pace, Server, ServerSpec

_NUISANCES = 14
"""Tells their random numbers from those of the traffic, which has the same seed."""


class World:
    """`servers`, what they export, random numbers for the `clients`; a `pace` is that of every machine."""

    def __init__(self, scenario: Scenario, seed: int, pace: Pace | None) -> None:
        paces, frozen, self._stalls, self.clients, self._noise = np.random.default_rng(
            [seed, _NUISANCES]
        ).spawn(5)
        nuisances = self._nuisances = scenario.nuisances
        specs = scenario.servers
        self.servers = [
            Server(spec, pace or pace_of(nuisances, spec, rng))
            for spec, rng in zip(specs, paces.spawn(len(specs)), strict=True)
        ]
        self.exporters = [
            Exporter(server, end_of_spans(nuisances.frozen_gauges, frozen)) for server in self.servers
        ]

    def awake_s(self) -> Callable[[float], float]:
        """Return one router's: when it handles what comes at a time."""
        return end_of_spans(self._nuisances.stalls, self._stalls)

    def noise(self) -> float:
        """Return what the TTFT of the next request is multiplied by."""
        noise = self._nuisances.ttft_noise
        return math.exp(noise * float(self._noise.standard_normal())) if noise else 1.0


def pace_of(nuisances: Nuisances, spec: ServerSpec, rng: np.random.Generator) -> Pace | None:
    """Return how fast a machine is at any time, in shares of its speed; None where that is always 1."""
    noise, cold = nuisances.speed_noise, nuisances.cold_start
    if not noise and cold is None:
        return None
    drawn: list[float] = []

    def pace(now_s: float) -> float:
        period = int(now_s / SPEED_PERIOD_S)
        while len(drawn) <= period:
            drawn.append(math.exp(noise * float(rng.standard_normal())))
        is_cold = cold is not None and now_s - _started_s(spec, now_s) < cold.length_s
        return drawn[period] / cold.times if cold is not None and is_cold else drawn[period]

    return pace


def _started_s(spec: ServerSpec, now_s: float) -> float:
    """Return when a machine that serves requests now was started."""
    return spec.recovers_s if spec.fails_s is not None and now_s >= spec.recovers_s else spec.joins_s


def end_of_spans(spans: Spans | None, rng: np.random.Generator) -> Callable[[float], float]:
    """Return what gives the end of the span in which a time lies, or that time itself; the phase is drawn."""
    if spans is None:
        return _itself
    first_s = float(rng.uniform(0.0, spans.period_s))

    def end_s(now_s: float) -> float:
        into_s = (now_s - first_s) % spans.period_s
        return max(now_s, now_s - into_s + spans.length_s) if now_s >= first_s else now_s

    return end_s


def _itself(now_s: float) -> float:
    return now_s
