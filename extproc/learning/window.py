"""The samples that the trainer keeps: bounded, and stratified, so that no kind of traffic crowds out another.

Hours of idle traffic are many samples that say little, and the rare busy minutes are what a model is made
from. So samples are kept by strata, a backend in one zone of the estimate each, and every stratum keeps its
newest. With a plain window of the newest samples the model would forget at night what it had learned at noon.
"""

import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES, ZoneBounds

MAX_STRATA = 768
"""Guessed: 256 backends. With more of them, a model made from some of the fleet serves all of it as well."""

MAX_ROWS = 60_000
"""Measured: of this many rows of 40 backends a model is made in 4 s. So few features need no more."""

_COMPACT_AFTER = 10_000
"""Guessed: sorting is put off until this many rows were added, and as many as are kept."""

_STRATUM, _AT_S, _FEATURES, _TTFT_S = 0, 1, slice(2, 2 + len(FEATURES)), 2 + len(FEATURES)
_WIDTH = _TTFT_S + 1

_Rows = npt.NDArray[np.float64]
_Key = tuple[str, int]


class Window:
    """The newest `rows_per_stratum` observations of every stratum, or fewer where `max_rows` demands it.

    Beyond `max_strata`, the strata that were fed least recently are dropped. `duplicates` counts the
    rows that equal another one that is kept.
    """

    def __init__(
        self,
        zone: ZoneBounds,
        rows_per_stratum: int,
        *,
        max_strata: int = MAX_STRATA,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self.duplicates = 0
        self._bounds = (zone.low_s, zone.saturated_s)
        self._rows_per_stratum = rows_per_stratum
        self._max_strata = max_strata
        self._max_rows = max_rows
        self._numbers: dict[_Key, int] = {}  # in the order in which they were fed
        self._next_number = 0
        self._kept: _Rows = np.empty((0, _WIDTH))
        self._added: list[_Rows] = []
        self._n_added = 0

    def add(self, observations: Observations) -> None:
        """Take clean observations in; how they are divided into batches makes no difference."""
        if not len(observations):
            return
        zone = np.digitize(observations.estimate_s, self._bounds)
        codes, stratum = np.unique(observations.backend * 3 + zone, return_inverse=True)
        numbers = np.array([self._feed((observations.fleet[code // 3], int(code % 3))) for code in codes])
        rows = np.empty((len(observations), _WIDTH))
        rows[:, _STRATUM] = numbers[stratum]
        rows[:, _AT_S], rows[:, _TTFT_S] = observations.at_s, observations.ttft_s
        rows[:, _FEATURES] = observations.features
        self._added.append(rows)
        self._n_added += len(rows)
        if self._n_added > max(_COMPACT_AFTER, len(self._kept)):
            self._compact()

    def observations(self) -> Observations:
        """Return all that is kept, in the order of time."""
        self._compact()
        rows = self._kept[np.argsort(self._kept[:, _AT_S], kind="stable")]
        numbers, stratum = np.unique(rows[:, _STRATUM], return_inverse=True)
        names = {number: name for (name, _), number in self._numbers.items()}
        fleet = sorted({names[number] for number in numbers})
        backend_of_stratum = np.array([fleet.index(names[number]) for number in numbers], dtype=np.intp)
        return Observations(
            rows[:, _AT_S], rows[:, _FEATURES], rows[:, _TTFT_S], backend_of_stratum[stratum], tuple(fleet)
        )

    def _feed(self, key: _Key) -> int:
        number = self._numbers.pop(key, None)
        if number is None:
            number, self._next_number = self._next_number, self._next_number + 1
        self._numbers[key] = number
        return number

    def _compact(self) -> None:
        """Sort by stratum and time, drop what is repeated, and keep the newest of each stratum."""
        for key in list(self._numbers)[: -self._max_strata]:
            del self._numbers[key]
        rows = np.concatenate([self._kept, *self._added])
        self._added, self._n_added = [], 0
        rows = rows[np.isin(rows[:, _STRATUM], list(self._numbers.values()))]
        rows = rows[np.lexsort(rows.T[::-1])]
        is_first = np.ones(len(rows), dtype=bool)
        is_first[1:] = (rows[1:] != rows[:-1]).any(axis=1)
        self.duplicates += len(rows) - int(is_first.sum())
        rows = rows[is_first]
        counts = np.unique(rows[:, _STRATUM], return_counts=True)[1]
        newer = np.repeat(np.cumsum(counts), counts) - np.arange(len(rows)) - 1
        self._kept = rows[newer < self._limit(counts)]

    def _limit(self, counts: npt.NDArray[np.intp]) -> int:
        """Return how many rows of a stratum may stay, so that all together are at most `max_rows`."""
        limit = self._rows_per_stratum
        while np.minimum(counts, limit).sum() > self._max_rows:
            limit //= 2
        return limit
