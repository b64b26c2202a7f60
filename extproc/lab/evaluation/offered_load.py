"""A workload that has met a fleet: its rate and its length are known, and so is what does not fit.

A load is relative to the requests per second that the servers can answer, which are measured on the engine
model itself: a queue that does not run dry, and the rate at which the middle half of it is answered. Requests
that share prefixes find them, as they would if all came to the same server.

How long a stretched trace lasts depends on what the fleet can answer, and that on how long it lasts, where
machines come and go or fail; so both are found together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from extproc.errors import ConfigError
from extproc.lab.evaluation.simulated_server import Server, ServerSpec
from extproc.lab.evaluation.trace_spec import TraceSpec
from extproc.lab.evaluation.workload_text import WorkloadSpec
from extproc.lab.traffic.arrivals import Arrival, Traffic

MIN_REQUESTS = 400
REQUESTS_PER_PLACE = 10
"""Both guessed: the estimate is within some percent of that from ten times as many."""

Sample = Callable[[int, int, np.random.Generator], list[Arrival]]
"""This many requests of a workload or more, for a model with this context."""


def requests_per_s(spec: ServerSpec, sample: Sample, max_model_len: int) -> float:
    """Return the throughput of one saturated server."""
    least = max(MIN_REQUESTS, REQUESTS_PER_PLACE * spec.limits.max_num_seqs)
    requests = sample(least, max_model_len, np.random.default_rng(0))
    server = Server(spec)
    for number, each in enumerate(requests):
        server.submit(str(number), each.prompt_tokens, each.output_tokens, 0.0, each.content)
    ended_s: list[float] = []
    while server.run_ends_s is not None:
        now_s = server.run_ends_s
        ended_s += [now_s] * len(server.end_run(now_s).finished)
    first, last = len(requests) // 4, 3 * len(requests) // 4
    return (last - first) / (ended_s[last] - ended_s[first])


def capacities_per_s(specs: Sequence[ServerSpec], sample: Sample, max_model_len: int) -> tuple[float, ...]:
    """Return the capacity of each server; equal machines are measured once."""
    known: dict[object, float] = {}
    for spec in specs:
        machine = (spec.profile, spec.limits)
        if machine not in known:
            known[machine] = requests_per_s(spec, sample, max_model_len)
    return tuple(known[spec.profile, spec.limits] for spec in specs)


def present_capacities_per_s(
    capacities: Sequence[float], specs: Sequence[ServerSpec], duration_s: float
) -> tuple[float, ...]:
    """Return the mean capacities over a time in parts of which a server may be absent."""
    return tuple(each * spec.present_share(duration_s) for each, spec in zip(capacities, specs, strict=True))


LONGEST_CONTEXT = 131_072
"""The most tokens of input and output together: the context of the models that are common today."""
_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """The arrivals, their duration, and how much each server can answer, on average over that time."""

    traffic: Traffic
    duration_s: float
    capacities_per_s: tuple[float, ...]
    max_model_len: int


def offered_load(
    workload: WorkloadSpec | TraceSpec, servers: Sequence[ServerSpec], max_model_len: int | None = None
) -> OfferedLoad:
    """Return what a workload is on these servers.

    With a `max_model_len` of None the context is as long as the workload's requests, but not beyond
    LONGEST_CONTEXT and the smallest KV cache. Raises ConfigError where one is asked for that no KV cache
    holds, where no server is there, or where the traffic would last for weeks.
    """
    context = _context(workload, servers, max_model_len)
    full = capacities_per_s(servers, workload.sample, context)
    duration_s = workload.lasts_s(sum(full))
    for _ in range(_ROUNDS):
        capacities = present_capacities_per_s(full, servers, duration_s)
        if not sum(capacities) > 0:
            raise ConfigError(f"--fleet: no server is there in the {duration_s:.3g} s of the workload")
        before_s, duration_s = duration_s, workload.lasts_s(sum(capacities))
        if math.isclose(before_s, duration_s):
            break
    return OfferedLoad(workload.traffic(context, sum(capacities)), duration_s, capacities, context)


def _context(
    workload: WorkloadSpec | TraceSpec, servers: Sequence[ServerSpec], max_model_len: int | None
) -> int:
    smallest = min(spec.limits.kv_cache_blocks * spec.limits.block_size for spec in servers)
    if max_model_len is None:
        return min(workload.longest_tokens, LONGEST_CONTEXT, smallest)
    if max_model_len > smallest:
        raise ConfigError(f"a context of {max_model_len} tokens is more than a KV cache of {smallest} holds")
    return max_model_len
