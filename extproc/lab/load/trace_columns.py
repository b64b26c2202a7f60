"""The requests of a trace while they are read, in columns; what is held is bounded."""

from array import array
from dataclasses import dataclass, field

import numpy as np

from extproc.lab.traffic.trace import Prefixes, Trace
from extproc.lab.traffic.workload import MAX_TOKENS

MAX_REQUESTS = 2_000_000
"""Guessed: above the 1.4 million of BurstGPT; 50 MB."""
_MAX_TIME = 1e17
"""In microseconds, 3,000 years; two times that far apart can still be told to a hundredth of a second."""


@dataclass(slots=True, eq=False)
class TraceColumns:
    """One entry for each request, in the order of the file; `at` is in any unit, from any origin.

    `failures` counts the requests of the file that were not answered, which have no entry. `is_cut` is set
    where the file goes on.
    """

    at: "array[float]" = field(default_factory=lambda: array("d"))
    prompt_tokens: "array[int]" = field(default_factory=lambda: array("q"))
    output_tokens: "array[int]" = field(default_factory=lambda: array("q"))
    failures: int = 0
    is_cut: bool = False

    @property
    def is_full(self) -> bool:
        """Whether no more requests are held."""
        return len(self.at) == MAX_REQUESTS

    def add(self, at: float, prompt_tokens: int, output_tokens: int) -> None:
        """Add a request; a length of 0 counts as 1. Raises ValueError for what cannot be."""
        if not abs(at) <= _MAX_TIME:
            raise ValueError(f"no time: {at}")
        if not (0 <= prompt_tokens <= MAX_TOKENS and 0 <= output_tokens <= MAX_TOKENS):
            raise ValueError(f"{prompt_tokens} and {output_tokens} tokens, not 0 to {MAX_TOKENS}")
        self.at.append(at)
        self.prompt_tokens.append(prompt_tokens or 1)
        self.output_tokens.append(output_tokens or 1)

    def trace(self, units_per_s: float, prefixes: Prefixes | None = None) -> Trace:
        """Return the requests by time; there has to be one."""
        at = np.array(self.at)
        order = np.argsort(at, kind="stable")
        return Trace(
            (at[order] - at[order[0]]) / units_per_s,
            np.array(self.prompt_tokens, np.int64)[order],
            np.array(self.output_tokens, np.int64)[order],
            None if prefixes is None else prefixes.rows(order),
            self.failures,
            self.is_cut,
        )
