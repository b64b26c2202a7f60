"""How many requests per second a server can answer: what an evaluation's load is relative to.

Measured on the engine model itself: a queue that does not run dry, and the rate at which the middle half of
it is answered.
"""

from collections.abc import Sequence

import numpy as np

from extproc.evaluation.server import Server, ServerSpec
from extproc.simulation.workload import Workload

MIN_REQUESTS = 400
REQUESTS_PER_PLACE = 10
"""Both guessed: the estimate is within some percent of that from ten times as many."""


def requests_per_s(spec: ServerSpec, lengths: Workload, max_model_len: int) -> float:
    """The throughput of one saturated server."""
    count = max(MIN_REQUESTS, REQUESTS_PER_PLACE * spec.limits.max_num_seqs)
    prompts, outputs = lengths.draw(np.random.default_rng(0), count, max_model_len)
    server = Server(spec)
    for number, (prompt, output) in enumerate(zip(prompts.tolist(), outputs.tolist(), strict=True)):
        server.submit(str(number), prompt, output, 0.0)
    ended_s: list[float] = []
    while server.run_ends_s is not None:
        now_s = server.run_ends_s
        ended_s += [now_s] * len(server.end_run(now_s).finished)
    first, last = count // 4, 3 * count // 4
    return (last - first) / (ended_s[last] - ended_s[first])


def capacities_per_s(specs: Sequence[ServerSpec], lengths: Workload, max_model_len: int) -> tuple[float, ...]:
    """Of each server; equal machines are measured once."""
    known: dict[object, float] = {}
    for spec in specs:
        machine = (spec.profile, spec.limits)
        if machine not in known:
            known[machine] = requests_per_s(spec, lengths, max_model_len)
    return tuple(known[spec.profile, spec.limits] for spec in specs)
