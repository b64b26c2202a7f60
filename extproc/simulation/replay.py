"""A recorded load on the engine model, in virtual time: how its requests would have gone on that machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from extproc.simulation.engine import Engine, StepResult
from extproc.simulation.limits import EngineLimits
from extproc.simulation.profile import EngineProfile
from extproc.simulation.recording import Floats, Recording


@dataclass(frozen=True, slots=True, eq=False)
class Timings:
    """Of each request of a recording, in its order; NaN for those that were given up."""

    ttft_s: Floats
    duration_s: Floats


def replay(recording: Recording, profile: EngineProfile, limits: EngineLimits) -> Timings:
    """Every request at its time, with its lengths, given up after as long as it was in the recording.

    Raises ValueError for a request that the KV cache cannot hold.
    """
    return _Replay(recording, profile, limits).timings()


class _Replay:
    def __init__(self, recording: Recording, profile: EngineProfile, limits: EngineLimits) -> None:
        count = len(recording.at_s)
        self._at_s = recording.at_s.tolist()
        self._lengths = list(
            zip(recording.prompt_tokens.tolist(), recording.output_tokens.tolist(), strict=True)
        )
        self._patience_s = np.where(recording.is_complete, np.inf, recording.duration_s).tolist()
        self._engine = Engine(profile, limits)
        self._overhead_s = profile.overhead_s
        self._first_s = [np.nan] * count
        self._last_s = [np.nan] * count
        self._leaving: list[tuple[float, int]] = []
        self._coming: Iterator[int] = iter(range(count))
        self._next = next(self._coming, None)

    def timings(self) -> Timings:
        now_s = 0.0
        while True:
            self._catch_up(now_s)
            duration_s = self._engine.begin_step(now_s)
            if duration_s is not None:
                self._catch_up(now_s + duration_s)
                now_s += duration_s
                self._note(self._engine.end_step(now_s), now_s)
            elif self._next is not None:
                now_s = self._at_s[self._next]
            else:
                break
        since_s = np.array(self._at_s) - self._overhead_s
        return Timings(np.array(self._first_s) - since_s, np.array(self._last_s) - since_s)

    def _catch_up(self, now_s: float) -> None:
        """Let those come that are due, and those leave that have lost patience."""
        while self._next is not None and self._at_s[self._next] <= now_s:
            number = self._next
            self._engine.submit(str(number), *self._lengths[number], self._at_s[number])
            if np.isfinite(self._patience_s[number]):
                heappush(self._leaving, (self._at_s[number] + self._patience_s[number], number))
            self._next = next(self._coming, None)
        while self._leaving and self._leaving[0][0] <= now_s:
            self._engine.abort(str(heappop(self._leaving)[1]))

    def _note(self, result: StepResult, now_s: float) -> None:
        if result.ttfts_s:
            for request_id in result.produced:
                if np.isnan(self._first_s[int(request_id)]):
                    self._first_s[int(request_id)] = now_s
        for request_id in result.finished:
            self._last_s[int(request_id)] = now_s
