"""A run: iterations of an engine between which nothing changes but the length of the sequences.

With a constant batch each iteration takes longer than the one before by the same amount, since each sequence
has one token more to read; so the end of any of them has a formula. Times are whole picoseconds: their sums
are exact, and a run ends at the same moment as its iterations one by one.
"""

import math

TICKS_PER_S = 10**12
TICK_S = 1 / TICKS_PER_S


class Run:
    """`steps` iterations; the first takes `first` ticks, each further one `growth` more than the last."""

    __slots__ = ("first", "growth", "steps")

    def __init__(self, steps: int, first: int, growth: int) -> None:
        self.steps = steps
        self.first = first
        self.growth = growth

    def ticks(self, steps: int) -> int:
        """How long so many of its iterations take."""
        return steps * self.first + self.growth * (steps * (steps - 1) // 2)

    def steps_in(self, ticks: float) -> int:
        """About how many iterations end within so many ticks; rounding may make it one more or less."""
        if not self.growth:
            return int(ticks / self.first)
        half = self.first / self.growth - 0.5
        return int(math.sqrt(half * half + 2 * ticks / self.growth) - half)
