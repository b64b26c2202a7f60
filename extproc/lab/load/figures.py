"""The figures of a run so far, by step: for the progress display and the summary. No I/O."""

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from extproc.lab.load.completion import Reply
from extproc.lab.traffic.workload import Step
from extproc.outcomes.outcome import Failure

RECENT_S = 10.0
"""How far back the progress display's TTFT looks."""


@dataclass(slots=True)
class StepFigures:
    """One step, or several of one rate. TTFTs and failures belong to the step that sent the request.

    `completed` counts the good ends while the step lasted, whichever step had sent the request. Those that
    are `not_sent` found too many in flight; admission control has `refused` some, and the end of the run or
    of a pass `aborted` some.
    """

    step: Step
    elapsed_s: float = 0.0
    sent: int = 0
    not_sent: int = 0
    completed: int = 0
    refused: int = 0
    aborted: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    ttfts_s: list[float] = field(default_factory=list)
    max_in_flight: int = 0
    max_running: float = 0.0

    @property
    def errors(self) -> int:
        """Requests that failed, in whatever way."""
        return self.failures.total()

    @property
    def completed_per_s(self) -> float:
        """Good ends per second of the step."""
        return self.completed / self.elapsed_s if self.elapsed_s else 0.0

    def add(self, other: "StepFigures") -> None:
        """Take in another step of the same rate."""
        self.elapsed_s += other.elapsed_s
        self.sent += other.sent
        self.not_sent += other.not_sent
        self.completed += other.completed
        self.refused += other.refused
        self.aborted += other.aborted
        self.failures += other.failures
        self.ttfts_s += other.ttfts_s
        self.max_in_flight = max(self.max_in_flight, other.max_in_flight)
        self.max_running = max(self.max_running, other.max_running)


class Figures:
    """A run: its steps, the newest last, and what is in flight."""

    def __init__(self) -> None:
        self.steps: list[StepFigures] = []
        self.in_flight = 0
        self.samples = 0
        self.unplaced = 0
        self.max_late_s = 0.0
        self.is_step_running = False
        self.step_began_s = 0.0
        self._recent: deque[tuple[float, float]] = deque()

    @property
    def sent(self) -> int:
        """All requests."""
        return sum(step.sent for step in self.steps)

    @property
    def errors(self) -> int:
        """All failures."""
        return sum(step.errors for step in self.steps)

    def begin(self, step: Step, now_s: float) -> StepFigures:
        """Return a step starts."""
        self.steps.append(StepFigures(step))
        self.step_began_s = now_s
        self.is_step_running = True
        return self.steps[-1]

    def end(self, now_s: float) -> None:
        """Note that the step is over."""
        self.steps[-1].elapsed_s = now_s - self.step_began_s
        self.is_step_running = False

    def was_sent(self, requests: int, running: float, late_s: float) -> None:
        """Note that an arrival has been sent, `late_s` after its time."""
        step = self.steps[-1]
        self.in_flight += requests
        step.sent += requests
        step.max_in_flight = max(step.max_in_flight, self.in_flight)
        step.max_running = max(step.max_running, running)
        self.max_late_s = max(self.max_late_s, late_s)

    def has_ended(self, sent_in: StepFigures, reply: Reply, is_refused: bool, now_s: float) -> None:
        """Note that a request has ended that `sent_in` had sent."""
        self.in_flight -= 1
        if is_refused:
            sent_in.refused += 1
        elif reply.failure is Failure.CLIENT_LEFT:
            sent_in.aborted += 1
        elif reply.failure is not None:
            sent_in.failures[reply.failure.value] += 1
        elif self.is_step_running:
            self.steps[-1].completed += 1
        if reply.ttft_s is not None and reply.failure is None:
            sent_in.ttfts_s.append(reply.ttft_s)
            self._recent.append((now_s, reply.ttft_s))

    def recent_ttfts_s(self, now_s: float) -> list[float]:
        """Return the TTFTs of the requests that ended in the last RECENT_S."""
        while self._recent and self._recent[0][0] < now_s - RECENT_S:
            self._recent.popleft()
        return [ttft_s for _, ttft_s in self._recent]

    def by_rate(self) -> list[StepFigures]:
        """Return the steps of all passes taken together, by rate."""
        merged: dict[float, StepFigures] = {}
        for step in self.steps:
            merged.setdefault(step.step.rate, StepFigures(step.step)).add(step)
        return [merged[rate] for rate in sorted(merged)]


def percentiles_s(ttfts_s: list[float], *percents: float) -> tuple[float, ...] | None:
    """Return percentiles (0 to 100); None without values."""
    return tuple(np.percentile(ttfts_s, percents).tolist()) if ttfts_s else None
