from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from extproc.errors import TrainingError
from extproc.learning.dataset import clean_observations
from extproc.learning.features import FEATURES
from extproc.learning.fit import MIN_SAMPLES, Training, fit
from extproc.learning.manifest import Manifest
from extproc.learning.model_file import dump, load

Columns = dict[str, np.ndarray[Any, Any]]
Make = Callable[..., Columns]


def trained(columns: Columns, at_s: float = 1.7e9) -> Training:
    return fit(clean_observations(columns)[0], seed=3, trained_at_s=at_s)


def manifest_of(columns: Columns, at_s: float = 1.7e9) -> Manifest:
    return trained(columns, at_s).model_file.manifest


def test_the_same_samples_and_seed_give_the_same_bytes(samples_of: Make) -> None:
    first, second = (dump(trained(samples_of()).model_file) for _ in range(2))
    assert first == second


def test_another_time_of_training_gives_another_version(samples_of: Make) -> None:
    versions = {manifest_of(samples_of(), at_s).model_version for at_s in (1.7e9, 1.8e9)}
    assert len(versions) == 2


def test_held_out_errors_are_near_the_noise_although_machines_differ(samples_of: Make) -> None:
    manifest = manifest_of(samples_of(n=4000, slowness=(1.0, 1.0, 3.0)))
    errors = manifest.held_out_errors
    assert errors.median_relative_error < 0.1, "the noise alone is 0.067"
    assert errors.share_within_20_percent > 0.9
    assert errors.pairwise_accuracy is not None
    assert errors.pairwise_accuracy > 0.75


def test_the_manifest_tells_what_the_model_was_made_from(samples_of: Make) -> None:
    columns = samples_of(n=2000, slowness=(1.0, 2.0), swing=50)
    estimate_s = columns["own_prompt_s"] + columns["turns_s"]
    medium = (estimate_s >= 1) & (estimate_s < 10)
    manifest = manifest_of(columns)
    assert manifest.trained_at == "2023-11-14T22:13:20+00:00"
    assert manifest.samples.held_out == round(medium.sum() / 4)
    assert manifest.samples.train >= medium.sum() - manifest.samples.held_out
    assert manifest.features == FEATURES


def test_garbage_in_the_store_does_not_change_the_model(samples_of: Make) -> None:
    columns = samples_of()
    garbage = {name: np.repeat(column[:1], 60, axis=0) for name, column in columns.items()}
    rng = np.random.default_rng(5)
    bad = [np.nan, -1.0, np.inf, -np.inf, 1e300]
    for row in range(60):
        garbage[rng.choice(["at_s", "ttft_s", *FEATURES])][row] = bad[row % len(bad)]
    mixed = {
        name: np.concatenate([garbage[name][:30], columns[name], garbage[name][30:]]) for name in columns
    }
    assert dump(trained(mixed).model_file) == dump(trained(columns).model_file)
    assert sum(clean_observations(mixed)[1].values()) == 60


def test_too_few_samples_make_no_model_and_the_error_says_why(samples_of: Make) -> None:
    columns = samples_of(n=1000, slowness=(0.1, 0.6), is_balanced=False)
    columns["is_clean"][250:] = False
    with pytest.raises(TrainingError, match=rf"medium zone; at least {MIN_SAMPLES} .* low_zone"):
        trained(columns)


def test_an_empty_store_makes_no_model(samples_of: Make) -> None:
    with pytest.raises(TrainingError, match=r"^0 samples whose estimate"):
        trained({name: column[:0] for name, column in samples_of().items()})


def test_exactly_enough_samples_make_a_model(samples_of: Make) -> None:
    columns = samples_of(n=400)
    estimate_s = columns["own_prompt_s"] + columns["turns_s"]
    medium = np.flatnonzero((estimate_s >= 1) & (estimate_s < 10))
    enough = {name: column[medium[:MIN_SAMPLES]] for name, column in columns.items()}
    load(dump(trained(enough).model_file))
    with pytest.raises(TrainingError):
        trained({name: column[1:] for name, column in enough.items()})


def test_the_first_model_needs_no_incumbent(samples_of: Make) -> None:
    training = trained(samples_of())
    assert training.verdict.is_accepted
    assert training.verdict == training.model_file.manifest.verdict
    assert training.verdict.incumbent_error is None
