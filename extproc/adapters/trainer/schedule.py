"""When to train: for the first model, on a schedule, or because the model in use has become worse than none.

Only samples of the medium zone count, since a model is made from them alone. A run that brought no model is
repeated when there is as much to learn from again, so that hopeless data costs ever fewer runs.
"""

from enum import StrEnum

from extproc.learning.fit import MIN_SAMPLES

MIN_DRIFT_SAMPLES = 50
"""Guessed: what a backend has to have answered since the model became worse than the plain estimate about
it."""


class Occasion(StrEnum):
    """Why a training run begins."""

    NO_MODEL = "no_model"
    DRIFT = "drift"
    SCHEDULE = "schedule"


class TrainingSchedule:
    """The samples and runs so far; `now_s` is of one monotonic clock."""

    def __init__(self, interval_s: float, min_new_samples: int, now_s: float) -> None:
        self._interval_s = interval_s
        self._min_new_samples = min_new_samples
        self._tried_s = now_s
        self._new_samples = 0
        self._all_samples = 0
        self._first_model_needs = MIN_SAMPLES
        self._drift_needs = MIN_DRIFT_SAMPLES

    def saw(self, medium_samples: int) -> None:
        """Count more samples of the medium zone."""
        self._new_samples += medium_samples
        self._all_samples += medium_samples

    def due(self, now_s: float, *, has_model: bool, drift_samples: int) -> Occasion | None:
        """Return why to train now, or None; `drift_samples` counts a drifted backend's since its drift."""
        if not has_model and self._new_samples >= self._first_model_needs:
            return Occasion.NO_MODEL
        if has_model and drift_samples >= self._drift_needs:
            return Occasion.DRIFT
        is_time = now_s - self._tried_s >= self._interval_s
        return Occasion.SCHEDULE if is_time and self._new_samples >= self._min_new_samples else None

    def tried(self, occasion: Occasion, now_s: float, *, is_published: bool, drift_samples: int) -> None:
        """Note that a run has ended."""
        if is_published:
            self._drift_needs = MIN_DRIFT_SAMPLES
        elif occasion is Occasion.DRIFT:
            self._drift_needs = 2 * drift_samples
        elif occasion is Occasion.NO_MODEL:
            self._first_model_needs = self._all_samples
        self._tried_s, self._new_samples = now_s, 0
