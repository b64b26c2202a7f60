from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.build import STALE_AFTER_S, a_backend, settle

from extproc.fleet.backend import Backend
from extproc.fleet.pace import Pace
from extproc.fleet.view import FleetView
from extproc.learning.features import ROW
from extproc.policy.expected_wait import expected_wait
from extproc.policy.predictive import corrections

NOW_S = 100.0
RECENTLY_S = NOW_S - 0.1

_seconds = st.floats(0.0, 1e4)
_paces = st.builds(Pace, base_s=_seconds, token_s=st.floats(1e-9, 1.0), turn_s=_seconds, stay_s=_seconds)
_candidates = st.fixed_dictionaries(
    {
        "pace": _paces,
        "own": st.integers(0, 500),
        "own_at_scrape": st.integers(0, 500),
        "foreign": st.integers(0, 500).map(float),
        "running": st.integers(0, 500).map(float),
        "waiting": st.integers(0, 500).map(float),
        "kv_cache_fraction": st.floats(0.0, 1.0),
        "scraped_at_s": st.sampled_from([-inf, NOW_S - 9.0, RECENTLY_S]),
        "running_limit": st.just(inf) | st.floats(1.0, 500.0),
        "places": st.just(inf) | st.floats(1.0, 500.0),
        "kv_free": st.just(inf) | st.floats(-1e6, 1e6),
        "kv_freed_s": st.floats(0.0, 10.0),
        "prefilled_at_s": st.just(-inf) | st.floats(NOW_S - 60.0, NOW_S + 60.0),
    }
)


@dataclass(frozen=True)
class _Manifest:
    model_version: str = "v1"


class CountingModel:
    """A model that corrects the first row that it is asked about by 0, the next by 1, and so on."""

    manifest = _Manifest()

    def __init__(self) -> None:
        self.asked: list[tuple[float, ...]] = []

    def corrections(self, rows: Sequence[bytes]) -> list[float]:
        self.asked = [ROW.unpack(row) for row in rows]
        return [float(number) for number in range(len(self.asked))]


def _backend(number: int, fields: dict[str, object]) -> Backend:
    backend = a_backend(number=number)
    for name, value in fields.items():
        setattr(backend, name, value)
    settle([backend])
    return backend


def _defined(view: FleetView, backend: Backend, prompt_tokens: float) -> tuple[float, ...]:
    """The features of a candidate, by the definitions of what is recorded and of the estimate."""
    facts = view.facts(backend)
    cached_tokens = view.cached_tokens.get(backend, 0.0)
    input_tokens = max(0.0, prompt_tokens - cached_tokens)
    gauges = facts.num_running, facts.load, facts.num_waiting, facts.kv_cache_fraction, input_tokens
    return *gauges, *expected_wait(backend, facts.load, prompt_tokens, cached_tokens, NOW_S)


@settings(deadline=None)
@given(
    st.lists(st.tuples(_candidates, st.none() | st.floats(0.0, 1e6)), max_size=6),
    st.integers(0, 1_000_000),
)
def test_the_model_sees_what_is_recorded_of_each_candidate_whose_scrape_is_fresh(
    candidates: list[tuple[dict[str, object], float | None]], prompt_tokens: int
) -> None:
    held = [(_backend(number, fields), tokens) for number, (fields, tokens) in enumerate(candidates)]
    cached = {backend: tokens for backend, tokens in held if tokens is not None}
    view = FleetView([backend for backend, _ in held], NOW_S, NOW_S - STALE_AFTER_S, cached)
    model = CountingModel()
    found = corrections(view, prompt_tokens, model)
    fresh = [number for number, (backend, _) in enumerate(held) if view.is_fresh(backend)]
    assert found == {number: float(at) for at, number in enumerate(fresh)}
    assert model.asked == [
        pytest.approx(_defined(view, held[number][0], prompt_tokens), rel=1e-9) for number in fresh
    ]
