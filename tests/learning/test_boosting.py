from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from extproc.learning.boosting import MAX_LEAVES, MAX_TREES, FleetModel, fit_fleet
from extproc.learning.dataset import Observations, clean_observations
from extproc.learning.features import FEATURES, MONOTONE
from extproc.learning.model_file import booster_of
from extproc.learning.tree_text import parse_trees

Columns = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def unequal(samples_of: Callable[..., Columns]) -> Observations:
    """Two fast machines and one four times slower, each with as much load as makes their TTFT alike."""
    return clean_observations(samples_of(n=4000, slowness=(1.0, 1.0, 4.0)))[0]


@pytest.fixture(scope="module")
def fitted(unequal: Observations) -> FleetModel:
    return fit_fleet(unequal, seed=1)


def test_offsets_tell_how_much_slower_a_machine_is(fitted: FleetModel) -> None:
    assert fitted.offsets == pytest.approx([0.0, 0.0, np.log(4.0)], abs=0.15)


def test_the_shape_says_what_load_costs_although_the_policy_hid_it(fitted: FleetModel) -> None:
    at_25 = {"num_running": 25, "load": 25, "kv_cache_fraction": 0.19, "num_waiting": 0, "input_tokens": 600}
    at_75 = at_25 | {"num_running": 48, "load": 75, "kv_cache_fraction": 0.58}
    rows = np.array([[float(row[name]) for name in FEATURES] for row in (at_25, at_75)])
    at_25_s, at_75_s = np.exp(booster_of(fitted.trees).predict(rows))
    assert at_75_s / at_25_s == pytest.approx(2.6, rel=0.25)


def test_a_backend_with_few_samples_gets_a_small_offset(unequal: Observations) -> None:
    slow = np.flatnonzero(unequal.backend == 2)
    few = np.sort(np.concatenate([np.flatnonzero(unequal.backend != 2), slow[:3]]))
    assert 0.0 < fit_fleet(unequal.take(few), seed=1).offsets[2] < np.log(2.0)


def test_a_backend_that_left_has_no_offset(unequal: Observations) -> None:
    assert fit_fleet(unequal.take(unequal.backend != 2), seed=1).offsets[2] == 0.0


def test_the_model_is_small_enough_for_a_decision(fitted: FleetModel) -> None:
    trees = parse_trees(fitted.trees, FEATURES, MONOTONE)
    assert len(trees) <= MAX_TREES
    assert max(len(tree.leaf_value) for tree in trees) <= MAX_LEAVES


def test_features_that_never_vary_make_a_model_of_the_typical_wait() -> None:
    n = 300
    constant = Observations(
        np.arange(1.0, n + 1), np.full((n, len(FEATURES)), 3.0), np.full(n, 2.0), np.zeros(n, np.intp), ("a",)
    )
    booster = booster_of(fit_fleet(constant, seed=1).trees)
    assert booster.predict(np.zeros((1, len(FEATURES)))) == pytest.approx(np.log(2.0))
