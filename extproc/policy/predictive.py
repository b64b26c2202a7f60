"""Layer 2: the trained model corrects the estimate of the candidates, where it has shown that it helps.

It is asked about the candidates with the smallest estimates, all at once, as far as their scrapes are fresh.
Its answer is a factor of the estimate, as a logarithm. Whether it has a say is each backend's own affair
(`fleet.prediction_record`): without trust the correction is zero, and the plain estimate counts.
"""

from collections.abc import Sequence
from typing import Protocol

from extproc.fleet.view import FleetView
from extproc.learning.features import ROW


class Versioned(Protocol):
    """A manifest, of which only the version matters here."""

    @property
    def model_version(self) -> str:
        """The version that decisions are recorded with."""


class CorrectionModel(Protocol):
    """A model that can be asked; see `learning.predictor` for the one that is loaded."""

    @property
    def manifest(self) -> Versioned:
        """The part of the model file that describes the model."""

    def corrections(self, rows: Sequence[bytes]) -> list[float]:
        """Return log(ttft / estimate) for each row of features that `learning.features.ROW` has packed."""


def corrections(view: FleetView, input_tokens: float, model: CorrectionModel) -> dict[int, float]:
    """Ask the model about the candidates whose scrapes are fresh: log(ttft / estimate), by their number."""
    rows = _rows(view, float(input_tokens))
    if not rows:
        return {}
    found = model.corrections(rows)
    if len(rows) == len(view):
        return dict(enumerate(found))
    fresh = [number for number, each in enumerate(view.backends) if view.is_fresh(each)]
    return dict(zip(fresh, found, strict=True))


def _rows(view: FleetView, prompt_tokens: float) -> list[bytes]:
    """Return the features of the candidates whose scrapes are fresh, in the order of `FEATURES`, packed.

    The input is what a backend has to compute: without the tokens that are expected in its prefix cache. The
    gauges are those of `FleetView.facts`, the terms those of `policy.expected_wait`, both written out once
    more for speed; a test holds them equal.
    """
    cached, now_s, fresh_from_s, pack = view.cached_tokens.get, view.now_s, view.fresh_from_s, ROW.pack
    rows: list[bytes] = []
    for backend in view.backends:
        if backend.scraped_at_s < fresh_from_s:
            continue
        load, limit, turns_s, pace = backend.load, backend.running_limit, backend.turns_s, backend.pace
        new_tokens, ahead_s = prompt_tokens - cached(backend, 0.0), backend.prefilled_at_s - now_s
        running = backend.running + (backend.own - backend.own_at_scrape)  # as `fleet.signals.running_now`
        running = running if running > load else load
        if prompt_tokens > backend.kv_free:
            turns_s = max(turns_s, backend.kv_freed_s * (prompt_tokens - backend.kv_free))
        row = pack(
            running if running < limit else limit,
            load,
            backend.waiting,
            backend.kv_cache_fraction,
            new_tokens if new_tokens > 0.0 else 0.0,
            pace.base_s + pace.token_s * new_tokens,
            ahead_s if ahead_s > 0.0 else 0.0,
            turns_s,
            backend.crowding_s,
        )
        rows.append(row)
    return rows
