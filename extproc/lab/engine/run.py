"""A run: iterations of an engine between which nothing changes but the length of the sequences.

With a constant batch each iteration takes longer than the one before by the same amount, since each sequence
has one token more to read; so the end of any of them has a formula. Times are whole picoseconds: their sums
are exact, and a run ends at the same moment as its iterations one by one.
"""

import math

import msgspec

TICKS_PER_S = 10**12
TICK_S = 1 / TICKS_PER_S


class Run(msgspec.Struct, gc=False):
    """`steps` iterations; the first takes `first` ticks, each further one `growth` more than the last."""

    steps: int
    first: int
    growth: int

    def ticks(self, steps: int) -> int:
        """How long so many of its iterations take."""
        return steps * self.first + self.growth * (steps * (steps - 1) // 2)

    def step_at(self, ticks: float) -> int:
        """About which one is under way after so many ticks, from 1 on; rounding may make it one off."""
        if not self.growth:
            step = int(ticks / self.first) + 1
        else:
            half = self.first / self.growth - 0.5
            step = int(math.sqrt(half * half + 2 * ticks / self.growth) - half) + 1
        return 1 if step < 1 else self.steps if step > self.steps else step
