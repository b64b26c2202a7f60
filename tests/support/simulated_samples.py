"""Samples of a simulated backend under open-loop traffic, in virtual time, as serving would record them.

Load is exact; the gauges lie 0.1 to 0.4 s back, and the running requests are serving's own estimate from
them.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from support.clean_sample import SAMPLE

from extproc.adapters.files.sample_table import COLUMNS, row_of
from extproc.fleet.running_limit import RunningLimit
from extproc.fleet.signals import running_now
from extproc.lab.engine.engine import Engine
from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile
from extproc.outcomes.facts import Sample

START_S = 1.7e9
MACHINE = EngineProfile(
    base_step_s=3.2e-3,
    prefill_token_s=1.2e-4,
    decode_sequence_s=3e-4,
    kv_token_s=4e-7,
    kv_cache_tokens=32_768,
)


@dataclass(frozen=True, slots=True)
class Backend:
    """One simulated server, by the options of `extproc sim`."""

    name: str = "sim-1"
    speed: float = 1.0
    http_limit: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    kv_cache_tokens: int | None = None

    def engine(self) -> Engine:
        limits = EngineLimits(
            kv_cache_tokens=self.kv_cache_tokens or MACHINE.kv_cache_tokens,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            http_limit=self.http_limit,
        )
        return Engine(replace(MACHINE, speed=self.speed), limits)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Poisson arrivals whose rate goes through `(rate per second, seconds)`, several times over.

    Lengths are lognormal around their medians.
    """

    steps: Sequence[tuple[float, float]]
    passes: int = 1
    prompt_tokens: float = 200
    prompt_sigma: float = 0.5
    output_tokens: float = 64
    output_sigma: float = 0.2

    def arrivals_s(self, rng: np.random.Generator) -> list[float]:
        begin_s, times = 0.0, []
        for rate, seconds in list(self.steps) * self.passes:
            count = rng.poisson(rate * seconds)
            times += np.sort(rng.uniform(begin_s, begin_s + seconds, count)).tolist()
            begin_s += seconds
        return times

    def lengths(self, rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
        prompts = rng.lognormal(np.log(self.prompt_tokens), self.prompt_sigma, count)
        outputs = rng.lognormal(np.log(self.output_tokens), self.output_sigma, count)
        return [(max(1, round(p)), max(1, round(o))) for p, o in zip(prompts, outputs, strict=True)]


@dataclass(slots=True)
class _Gauges:
    """What the engine's gauges read over time, beside the requests in flight."""

    engine: Engine
    in_flight: dict[str, tuple[float, Sample]] = field(default_factory=dict)
    times_s: list[float] = field(default_factory=list)
    readings: list[tuple[int, int, float, int]] = field(default_factory=list)
    limit: RunningLimit = field(default_factory=RunningLimit)
    ended: int = 0

    def record(self, now_s: float) -> None:
        engine = self.engine
        self.times_s.append(now_s)
        self.readings.append((engine.running, engine.waiting, engine.kv_cache_fraction, len(self.in_flight)))

    def features(self, now_s: float, age_s: float) -> dict[str, float]:
        last = bisect_right(self.times_s, now_s - age_s)
        if not last:
            running, waiting, kv_cache_fraction, own = 0, 0, 0.0, 0
        else:
            running, waiting, kv_cache_fraction, own = self.readings[last - 1]
            second = self.readings[max(0, bisect_right(self.times_s, now_s - age_s - 1.0) - 1) : last]
            self.limit.seen(running, waiting, min(reading[3] for reading in second), self.ended)
        load = float(len(self.in_flight))
        return {
            "load": load,
            "own": load,
            "foreign": 0.0,
            "num_running": running_now(running, load - own, load, self.limit.limit, True),
            "num_waiting": float(waiting),
            "kv_cache_fraction": kv_cache_fraction,
            "scrape_age_s": age_s,
        }


def simulated_samples(backend: Backend, traffic: Traffic, seed: int) -> list[Sample]:
    """The samples of all requests, in the order of their ends."""
    rng = np.random.default_rng(seed)
    times_s = traffic.arrivals_s(rng)
    ages_s = rng.uniform(0.1, 0.4, len(times_s))
    todo = deque(zip(times_s, traffic.lengths(rng, len(times_s)), ages_s, strict=True))
    engine = backend.engine()
    gauges = _Gauges(engine)
    samples: list[Sample] = []
    ttft_s: dict[str, float] = {}
    now_s = 0.0

    def arrive(until_s: float) -> None:
        while todo and todo[0][0] < until_s:
            at_s, (prompt, output), age_s = todo.popleft()
            request_id = str(len(todo))
            features: dict[str, Any] = gauges.features(at_s, age_s)
            engine.submit(request_id, prompt, output, at_s)
            gauges.in_flight[request_id] = (
                at_s,
                msgspec.structs.replace(
                    SAMPLE,
                    at_s=START_S + at_s,
                    backend=backend.name,
                    input_tokens=float(prompt),
                    output_tokens=output,
                    **features,
                ),
            )
            gauges.record(at_s)

    while todo or gauges.in_flight:
        duration_s = engine.begin_step(now_s)
        gauges.record(now_s)
        if duration_s is None:
            now_s = todo[0][0]
            arrive(np.nextafter(now_s, np.inf))
            continue
        arrive(now_s + duration_s)
        now_s += duration_s
        result = engine.end_step(now_s)
        for request_id in result.produced:
            ttft_s.setdefault(request_id, now_s - gauges.in_flight[request_id][0])
        for request_id in result.finished:
            at_s, sample = gauges.in_flight.pop(request_id)
            ended = {"ttft_s": ttft_s[request_id], "duration_s": now_s - at_s}
            samples.append(msgspec.structs.replace(sample, **ended))
            gauges.ended += 1
        gauges.record(now_s)
    assert all(earlier <= later for earlier, later in pairwise(gauges.times_s))
    return samples


def columns_of(samples: Sequence[Sample]) -> dict[str, np.ndarray[Any, Any]]:
    """The samples by column, as the store gives them."""
    columns = {}
    for name, values in zip(COLUMNS, zip(*map(row_of, samples), strict=True), strict=True):
        is_text = any(isinstance(value, str) for value in values)
        columns[name] = np.array(values, dtype=object if is_text else np.float64)
    return columns
