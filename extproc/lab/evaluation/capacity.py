"""How many requests per second a server can answer: what an evaluation's load is relative to.

Measured on the engine model itself: a queue that does not run dry, and the rate at which the middle half of
it is answered. Requests that share prefixes find them, as they would if all came to the same server.
"""

from collections.abc import Callable, Sequence

import numpy as np

from extproc.lab.evaluation.simulated_server import Server, ServerSpec
from extproc.lab.traffic.arrivals import Arrival

MIN_REQUESTS = 400
REQUESTS_PER_PLACE = 10
"""Both guessed: the estimate is within some percent of that from ten times as many."""

Sample = Callable[[int, int, np.random.Generator], list[Arrival]]
"""So many requests of a workload or more, for a model with so long a context."""


def requests_per_s(spec: ServerSpec, sample: Sample, max_model_len: int) -> float:
    """The throughput of one saturated server."""
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
    """Of each server; equal machines are measured once."""
    known: dict[object, float] = {}
    for spec in specs:
        machine = (spec.profile, spec.limits)
        if machine not in known:
            known[machine] = requests_per_s(spec, sample, max_model_len)
    return tuple(known[spec.profile, spec.limits] for spec in specs)


def present_capacities_per_s(
    capacities: Sequence[float], specs: Sequence[ServerSpec], duration_s: float
) -> tuple[float, ...]:
    """The same capacities as means over so long a time, in parts of which a server may not be there."""
    return tuple(each * spec.present_share(duration_s) for each, spec in zip(capacities, specs, strict=True))
