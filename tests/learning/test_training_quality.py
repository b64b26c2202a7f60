from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from extproc.fleet.zone import Zone
from extproc.learning.dataset import clean_observations
from extproc.learning.fit import fit
from extproc.learning.training_quality import Route, RouteQuality, TrainingQuality

Columns = dict[str, np.ndarray[Any, Any]]
Make = Callable[..., Columns]


def judged(columns: Columns) -> TrainingQuality:
    observations, _ = clean_observations(columns)
    return fit(observations, seed=1, trained_at_s=1.7e9).quality


@pytest.fixture(scope="module")
def unequal(samples_of: Make) -> TrainingQuality:
    """Machines of three speeds with the same load on each, from idle to saturated."""
    return judged(samples_of(n=8000, slowness=(1.0, 1.5, 3.0), swing=55, is_balanced=False))


@pytest.fixture(scope="module")
def medium(unequal: TrainingQuality) -> dict[Route, RouteQuality]:
    return dict(unequal.zones[Zone.MEDIUM])


def test_the_model_is_near_the_noise_in_the_zone_it_is_made_for(
    medium: dict[Route, RouteQuality],
) -> None:
    errors = medium[Route.MODEL].errors
    assert errors is not None
    assert errors.median_relative < 0.1, "the noise alone is 0.067"
    assert errors.share_within_20_percent > 0.9
    plain = medium[Route.ESTIMATE].errors
    assert plain is not None
    assert plain.median_relative > errors.median_relative


def test_on_unequal_machines_the_model_picks_the_faster_one_where_least_load_does_not(
    medium: dict[Route, RouteQuality],
) -> None:
    by_model, by_load = medium[Route.MODEL].pairwise_accuracy, medium[Route.LEAST_LOAD].pairwise_accuracy
    assert by_model is not None
    assert by_load is not None
    assert by_model > 0.9
    assert by_load < 0.7


def test_every_route_is_judged_by_the_same_samples_and_pairs(medium: dict[Route, RouteQuality]) -> None:
    assert set(medium) == set(Route)
    assert len({(quality.samples, quality.pairs) for quality in medium.values()}) == 1


def test_least_load_predicts_no_time(medium: dict[Route, RouteQuality]) -> None:
    assert [route for route, quality in medium.items() if quality.errors is None] == [Route.LEAST_LOAD]


def test_the_last_ttft_knows_neither_load_nor_input(medium: dict[Route, RouteQuality]) -> None:
    last, model = medium[Route.LAST_TTFT].errors, medium[Route.MODEL].errors
    assert last is not None
    assert model is not None
    assert last.median_relative > 2 * model.median_relative


def test_the_report_is_plain_numbers(unequal: TrainingQuality) -> None:
    assert msgspec.json.decode(msgspec.json.encode(unequal))["zones"]["medium"]["model"]["samples"] > 0


def test_zones_without_samples_have_no_errors(samples_of: Make) -> None:
    quality = judged(samples_of(n=1000))
    assert quality.zones[Zone.SATURATED][Route.MODEL] == RouteQuality(0, None, 0, None)
