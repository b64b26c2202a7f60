"""The requests of one step of a load generator's schedule: drawn at random, or the next ones of a trace."""

from collections.abc import Iterator

import msgspec
import numpy as np

from extproc.lab.traffic.arrivals import Arrival
from extproc.lab.traffic.trace import Trace
from extproc.lab.traffic.workload import Step, Workload, arrival_offsets_s

_BASES = 1 << 62


class DrawnRequests:
    """Lengths of a workload, at the times of a Poisson process; no prompt begins as another does."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload

    def of_step(
        self, step: Step, requests_per_arrival: int, max_model_len: int | None, rng: np.random.Generator
    ) -> Iterator[Arrival]:
        """Return as many arrivals as the rate says, each of this many requests, at seconds from its start."""
        arrivals = step.arrivals(requests_per_arrival)
        prompts, outputs = self._workload.draw(rng, arrivals, max_model_len)
        at_s = arrival_offsets_s(rng, arrivals, step.duration_s)
        return map(Arrival, at_s.tolist(), prompts.tolist(), outputs.tolist())


class RecordedRequests:
    """A trace whose times are stretched to the rate of each step, so that its bursts stay.

    A step goes on in the trace where the last one ended. After its last request it begins again, with prompts
    that share nothing with those before. `cut` counts the requests that were longer than the context.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.cut = 0
        self._next = 0
        self._base = 0

    def of_step(
        self, step: Step, requests_per_arrival: int, max_model_len: int | None, rng: np.random.Generator
    ) -> Iterator[Arrival]:
        """Return what the trace has for a step; the rate is kept on average over the whole trace."""
        trace = self.trace
        gap_s = requests_per_arrival / step.rate  # on average
        factor = gap_s * len(trace) / trace.duration_s
        shift_s = -factor * float(trace.at_s[self._next])
        while True:
            for arrival in self._rest(max_model_len, rng):
                at_s = arrival.at_s * factor + shift_s
                if at_s >= step.duration_s:
                    return
                self._count(arrival)
                yield msgspec.structs.replace(arrival, at_s=at_s)
            self._next = 0
            shift_s += factor * trace.duration_s + gap_s

    def _rest(self, max_model_len: int | None, rng: np.random.Generator) -> Iterator[Arrival]:
        """Return the requests from the next one on; a new pass over them has new beginnings."""
        trace = self.trace
        if not self._next and trace.prefixes is not None:
            self._base = int(rng.integers(_BASES))
        return trace.rows(slice(self._next, None)).arrivals(max_model_len, self._base)

    def _count(self, arrival: Arrival) -> None:
        trace, row = self.trace, self._next
        recorded = int(trace.prompt_tokens[row] + trace.output_tokens[row])
        self.cut += arrival.prompt_tokens + arrival.output_tokens < recorded
        self._next += 1


StepRequests = DrawnRequests | RecordedRequests
