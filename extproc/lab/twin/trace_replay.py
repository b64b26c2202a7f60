"""A recorded load on the engine model, in virtual time: how its requests would have gone on that machine."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from extproc.lab.engine.engine import Engine
from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile
from extproc.lab.engine.run import StepResult
from extproc.lab.twin.recording import Floats, Recording


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
        self._engine = Engine(profile, limits)
        self._arrived_s = recording.at_s
        self._prompts: list[int] = recording.prompt_tokens.tolist()
        self._outputs: list[int] = recording.output_tokens.tolist()
        enters_s = recording.at_s + [profile.overhead_s(prompt) for prompt in self._prompts]
        self._enters_s = enters_s.tolist()
        self._coming = deque(np.argsort(enters_s, kind="stable").tolist())
        gives_up_s = np.maximum(recording.at_s + recording.duration_s, enters_s).tolist()
        leaving = np.flatnonzero(~recording.is_complete).tolist()
        self._leaving = deque(sorted((gives_up_s[number], number) for number in leaving))
        self._first_s = [np.nan] * count
        self._last_s = [np.nan] * count

    def timings(self) -> Timings:
        now_s = 0.0
        while True:
            self._catch_up(now_s)
            duration_s = self._engine.begin_step(now_s)
            if duration_s is not None:
                self._catch_up(now_s + duration_s)
                now_s += duration_s
                self._note(self._engine.end_step(now_s), now_s)
            elif self._coming:
                now_s = self._enters_s[self._coming[0]]
            else:
                break
        return Timings(self._first_s - self._arrived_s, self._last_s - self._arrived_s)

    def _catch_up(self, now_s: float) -> None:
        """Let those in that are due, and those leave that have lost patience."""
        while self._coming and self._enters_s[self._coming[0]] <= now_s:
            number = self._coming.popleft()
            self._engine.submit(
                str(number), self._prompts[number], self._outputs[number], self._enters_s[number]
            )
        while self._leaving and self._leaving[0][0] <= now_s:
            self._engine.abort(str(self._leaving.popleft()[1]))

    def _note(self, result: StepResult, now_s: float) -> None:
        if result.ttfts_s:
            for request_id in result.produced:
                if np.isnan(self._first_s[int(request_id)]):
                    self._first_s[int(request_id)] = now_s
        for request_id in result.finished:
            self._last_s[int(request_id)] = now_s
