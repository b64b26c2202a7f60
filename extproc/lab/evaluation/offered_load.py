"""A workload that has met a fleet: its rate and its length are known, and so is what does not fit.

How long a stretched trace lasts depends on what the fleet can answer, and that on how long it lasts, where
machines come and go or fail; so both are found together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from extproc.errors import ConfigError
from extproc.lab.evaluation.capacity import capacities_per_s, present_capacities_per_s
from extproc.lab.evaluation.simulated_server import ServerSpec
from extproc.lab.evaluation.trace_spec import TraceSpec
from extproc.lab.evaluation.workload_text import WorkloadSpec
from extproc.lab.traffic.arrivals import Traffic

LONGEST_CONTEXT = 131_072
"""The most tokens of input and output together: the context of the models that are common today."""
_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """What arrives, for how long, and how much each server can answer, on average over that time."""

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
            raise ConfigError(f"fleet: no server is there in the {duration_s:.3g} s of the workload")
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
