"""A recorded load on one server: what came, and how each request went.

It is made of what `extproc profile` has recorded, by column. Requests whose client left, or ran out of
patience, loaded the server until then, so they are kept; those that the server refused or failed are not,
and where they are many it was not the load that made the others wait.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extproc.adapters.files.sample_reading import read_samples
from extproc.errors import CalibrationError
from extproc.lab.engine.engine import Engine
from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile
from extproc.lab.engine.run import StepResult

RECORDING_COLUMNS = (
    "at_s",
    "backend",
    "is_clean",
    "failure",
    "input_tokens",
    "output_tokens",
    "token_limit",
    "cached_tokens",
    "ttft_s",
    "duration_s",
)
"""The fields of `Sample` that a recording is made of."""

MIN_REQUESTS = 20
"""Guessed: below it a 90th percentile is the second largest of all."""
LARGEST_FAILED_SHARE = 0.05
LARGEST_CACHED_SHARE = 0.05
"""Both guessed: what may be left out of account without being seen in the percentiles."""

_LEFT = frozenset({"client_left", "timeout"})

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Requests in the order of `at_s`, the first at 0, which was the unix time `began_s`; arrays are `(n,)`.

    Where `is_complete` is False the request was given up after `duration_s`, and `ttft_s` is NaN.
    """

    backend: str
    began_s: float
    at_s: Floats
    prompt_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    is_complete: npt.NDArray[np.bool_]
    ttft_s: Floats
    duration_s: Floats


def read_recording(path: Path, backend: str | None) -> Recording:
    """Return the recording in a sample store; raises as `recording_of` does, and SampleStoreError."""
    try:
        return recording_of(read_samples(path, RECORDING_COLUMNS), backend)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error


def recording_of(columns: Columns, backend: str | None = None) -> Recording:
    """Return the recording of one backend's samples; None is the only one that there is.

    `columns` maps `RECORDING_COLUMNS` to arrays: NaN where a number is missing, None where a text is. Raises
    CalibrationError where they do not tell how fast a server is.
    """
    name = _chosen(columns, backend)
    rows = np.asarray(columns["backend"] == name, dtype=bool)
    known = {column: np.asarray(columns[column])[rows] for column in RECORDING_COLUMNS}
    is_complete = known["is_clean"].astype(bool) & (known["ttft_s"] > 0)
    has_left = ~is_complete & np.isin(known["failure"].astype(str), list(_LEFT))
    outputs = np.where(is_complete, known["output_tokens"], known["token_limit"])
    _check_counts(is_complete, has_left)
    _check_lengths(known, is_complete, outputs)
    kept = np.flatnonzero((is_complete | has_left) & (outputs >= 1) & (known["input_tokens"] >= 1))
    kept = kept[np.argsort(known["at_s"][kept], kind="stable")]
    began_s = float(known["at_s"][kept[0]])
    return Recording(
        backend=name,
        began_s=began_s,
        at_s=known["at_s"][kept] - began_s,
        prompt_tokens=known["input_tokens"][kept].astype(np.int64),
        output_tokens=outputs[kept].astype(np.int64),
        is_complete=is_complete[kept],
        ttft_s=np.where(is_complete, known["ttft_s"], np.nan)[kept],
        duration_s=known["duration_s"][kept],
    )


def _chosen(columns: Columns, backend: str | None) -> str:
    found = sorted({str(name) for name in columns["backend"]})
    if not found:
        raise CalibrationError("there are no samples")
    if backend is None and len(found) > 1:
        raise CalibrationError(f"one server at a time: the samples are of {', '.join(found)}; choose one")
    if backend is not None and backend not in found:
        raise CalibrationError(f"there are no samples of {backend}, only of {', '.join(found)}")
    return found[0] if backend is None else backend


def _check_counts(is_complete: npt.NDArray[np.bool_], has_left: npt.NDArray[np.bool_]) -> None:
    completed = int(is_complete.sum())
    failed = len(is_complete) - completed - int(has_left.sum())
    if failed > LARGEST_FAILED_SHARE * len(is_complete):
        raise CalibrationError(
            f"{failed} of {len(is_complete)} requests were refused or failed; "
            f"at most {LARGEST_FAILED_SHARE:.0%} may be"
        )
    if completed < MIN_REQUESTS:
        raise CalibrationError(f"{completed} requests were completed; {MIN_REQUESTS} are the least")


def _check_lengths(known: Columns, is_complete: npt.NDArray[np.bool_], outputs: Floats) -> None:
    if not (outputs[is_complete] >= 1).any():
        raise CalibrationError(
            "the samples do not say how many tokens came out, as those of `extproc profile` do"
        )
    cached = np.nansum(known["cached_tokens"]) / max(1.0, np.nansum(known["input_tokens"]))
    if cached > LARGEST_CACHED_SHARE:
        raise CalibrationError(
            f"{cached:.0%} of the prompt tokens came from the prefix cache: "
            "profile again with prompts that the server has not seen, by another --seed"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Timings:
    """The times of each request of a recording, in its order; NaN for those that were given up."""

    ttft_s: Floats
    duration_s: Floats


def replay(recording: Recording, profile: EngineProfile, limits: EngineLimits) -> Timings:
    """Return every request at its time, with its lengths, given up after as long as it was in the recording.

    Raises ValueError for a request that the KV cache cannot hold.
    """
    return _ReplayedLoad(recording, profile, limits).timings()


class _ReplayedLoad:
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
