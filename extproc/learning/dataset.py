"""Which of the recorded samples a model may be made from.

The store holds whatever happened: retries, aborts, half-written rows, numbers that no server can have. A
sample counts if its request ran undisturbed and streamed, and if all its numbers are possible. A model is for
requests of which the estimate says that they are in the medium zone, and is made from such: what became of
them must not choose which of them are learned from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from extproc.fleet.bounds import MAX_BACKEND_NAME
from extproc.fleet.signals import ScrapeRule
from extproc.learning.features import FEATURES, LARGEST, TERMS, ZoneBounds, estimates_s

TRAINING_COLUMNS = (
    "at_s",
    "backend",
    "is_stream",
    "is_clean",
    "scrape_age_s",
    "expected_cached_tokens",
    "cached_tokens",
    "ttft_s",
    *FEATURES,
)
"""The fields of `Sample` that training reads."""

_DEFAULT_STALE_AFTER_S = ScrapeRule().stale_after_s

_LARGEST_CACHED_SHARE = 0.1
"""Guessed: a request of whose input the server had more in its prefix cache than expected is not one of its
length. The part that was expected there is no input at all: serving asks without it, too."""

_INPUT = FEATURES.index("input_tokens")
_LARGEST_TTFT_S = 86_400.0
_LATEST_S = 1e11
"""A unix time in the year 5138."""

HELD_OUT_SHARE = 0.25

LEARNED_FROM = 0.5
"""Measured on simulated fleets: with the samples from half of the zone's beginning on the errors within it
are smaller than with its own alone."""


class Dropped(StrEnum):
    """Why a sample is not used; the first reason that applies counts."""

    NOT_CLEAN = "not_clean"
    BAD_TIME = "bad_time"
    BAD_FEATURES = "bad_features"
    BAD_TTFT = "bad_ttft"
    DUPLICATE = "duplicate"
    STALE_SIGNALS = "stale_signals"
    CACHED = "cached"
    NO_ESTIMATE = "no_estimate"
    LOW_ZONE = "low_zone"
    SATURATED_ZONE = "saturated_zone"


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """Clean samples in the order of time: `at_s`, `ttft_s` and `backend` are `(n,)`, `features` is `(n,
    n_features)`.

    `backend` holds indices into `fleet`, the sorted names of all backends seen.
    """

    at_s: npt.NDArray[np.float64]
    features: npt.NDArray[np.float64]
    ttft_s: npt.NDArray[np.float64]
    backend: npt.NDArray[np.intp]
    fleet: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.at_s)

    @property
    def estimate_s(self) -> npt.NDArray[np.float64]:
        """The plain estimate of each TTFT as it was at the decision; 0 where there was none."""
        return estimates_s(self.features)

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | slice) -> "Observations":
        """Return the observations that a mask, indices or a slice select; the fleet stays."""
        return Observations(
            self.at_s[which], self.features[which], self.ttft_s[which], self.backend[which], self.fleet
        )


def clean_observations(
    columns: Mapping[str, npt.NDArray[np.generic]], stale_after_s: float = _DEFAULT_STALE_AFTER_S
) -> tuple[Observations, dict[Dropped, int]]:
    """Return the usable samples of all zones, and how many were dropped for which reason.

    `columns` maps `TRAINING_COLUMNS` to arrays of equal length: NaN where a number is missing. Signals are
    stale when they are older than `stale_after_s`: then the model is not asked when serving either.
    """
    at_s = np.asarray(columns["at_s"], dtype=np.float64)
    ttft_s = np.asarray(columns["ttft_s"], dtype=np.float64)
    features = np.column_stack([np.asarray(columns[name], dtype=np.float64) for name in FEATURES])
    terms = features[:, -len(TERMS) :]
    terms[np.isnan(terms).all(axis=1)] = 0.0  # no estimate: not recorded by a sidecar, or by an older one
    is_clean = np.asarray(columns["is_clean"], dtype=bool) & np.asarray(columns["is_stream"], dtype=bool)
    names = np.array([_backend_name(name) for name in columns["backend"]], dtype=object)
    scrape_age_s = np.asarray(columns["scrape_age_s"], dtype=np.float64)
    prompt = features[:, _INPUT].copy()
    expected = np.nan_to_num(np.asarray(columns["expected_cached_tokens"], dtype=np.float64))
    unexpected = np.asarray(columns["cached_tokens"], dtype=np.float64) - expected
    features[:, _INPUT] = np.maximum(prompt - expected, np.minimum(prompt, 0.0))
    is_possible = ((features >= 0) & (features <= np.array(LARGEST))).all(axis=1)
    is_possible &= (expected >= 0) & (expected <= LARGEST[_INPUT])
    keep, dropped = _sift(
        {
            Dropped.NOT_CLEAN: ~(is_clean & (names != "")),
            Dropped.BAD_TIME: ~((at_s > 0) & (at_s <= _LATEST_S)),
            Dropped.BAD_FEATURES: ~is_possible,
            Dropped.BAD_TTFT: ~((ttft_s > 0) & (ttft_s <= _LARGEST_TTFT_S)),
            Dropped.DUPLICATE: _repeated(at_s, ttft_s, names.astype(str), *features.T),
            Dropped.STALE_SIGNALS: ~((scrape_age_s >= 0) & (scrape_age_s <= stale_after_s)),
            Dropped.CACHED: unexpected / np.maximum(prompt, 1.0) > _LARGEST_CACHED_SHARE,
        }
    )
    order = np.flatnonzero(keep)[np.argsort(at_s[keep], kind="stable")]
    fleet, backend = np.unique(names[order], return_inverse=True)
    observations = Observations(
        at_s[order], features[order], ttft_s[order], backend.astype(np.intp), tuple(map(str, fleet))
    )
    return observations, dropped


def learnable(observations: Observations, zone: ZoneBounds) -> tuple[Observations, dict[Dropped, int]]:
    """Return what a model is made from, by the estimate, and how many lie on either side.

    That begins at half of where the model is asked, so that the edge of its zone is no edge for it.
    """
    estimate_s = observations.estimate_s
    keep, dropped = _sift(
        {
            Dropped.NO_ESTIMATE: estimate_s <= 0,
            Dropped.LOW_ZONE: estimate_s < LEARNED_FROM * zone.low_s,
            Dropped.SATURATED_ZONE: estimate_s >= zone.saturated_s,
        }
    )
    return observations.take(keep), dropped


def medium_zone(observations: Observations, zone: ZoneBounds) -> Observations:
    """Return those whose estimate lies in the medium zone: there a model is asked, and judged."""
    return observations.take(zone.is_medium(observations.estimate_s))


def split_by_time(observations: Observations, newest_share: float) -> tuple[Observations, Observations]:
    """Return the older part and the newest: a model is judged on what came after what it was made from."""
    cut = len(observations) - round(len(observations) * newest_share)
    return observations.take(slice(None, cut)), observations.take(slice(cut, None))


def _backend_name(found: object) -> str:
    """Return a name that a backend can have, or an empty one."""
    return found if isinstance(found, str) and len(found) <= MAX_BACKEND_NAME else ""


def _repeated(*columns: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Return which rows say the same as an earlier one."""
    rows = np.column_stack([np.unique(column, return_inverse=True)[1] for column in columns])
    is_repeated = np.ones(len(rows), dtype=bool)
    is_repeated[np.unique(rows, axis=0, return_index=True)[1]] = False
    return is_repeated


def _sift(
    faults: Mapping[Dropped, npt.NDArray[np.bool_]],
) -> tuple[npt.NDArray[np.bool_], dict[Dropped, int]]:
    """Return which rows have no fault at all, and how many have each fault first."""
    keep = np.ones(len(next(iter(faults.values()))), dtype=bool)
    dropped = {}
    for reason, is_faulty in faults.items():
        dropped[reason] = int((keep & is_faulty).sum())
        keep &= ~is_faulty
    return keep, dropped


def split_at_medium_zone(observations: Observations, zone: ZoneBounds) -> tuple[Observations, Observations]:
    """Split the observations of all zones where the newest share of the medium zone begins.

    The newest samples judge a model, and are no part of it. A model is judged in the medium zone: if the cut
    were the newest share of all samples, an idle hour at the end would leave nothing to judge by.
    """
    medium = np.flatnonzero(zone.is_medium(observations.estimate_s))
    n_older = len(medium) - round(len(medium) * HELD_OUT_SHARE)
    cut = int(medium[n_older]) if n_older < len(medium) else len(observations)
    return observations.take(slice(None, cut)), observations.take(slice(cut, None))
