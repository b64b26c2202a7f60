from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from extproc.learning.dataset import Observations, clean_observations, medium_zone, split_by_time
from extproc.learning.features import DEFAULT_ZONE, FEATURES
from extproc.learning.fit import fit
from extproc.learning.gate import judge, served_errors
from extproc.learning.manifest import Verdict
from extproc.learning.model_file import ModelFile, dump, load
from extproc.learning.model_rules import DEFAULT_GATE_RULE, GateRule
from extproc.learning.predictor import Predictor
from extproc.learning.trees import booster_of

Columns = dict[str, np.ndarray[Any, Any]]
Make = Callable[..., Columns]


def observations(columns: Columns) -> Observations:
    return clean_observations(columns)[0]


def model_of(columns: Columns) -> Predictor:
    return load(dump(fit(observations(columns), seed=1, trained_at_s=1.7e9).model_file))


def newest(columns: Columns) -> Observations:
    return split_by_time(medium_zone(observations(columns), DEFAULT_ZONE)[0], 0.25)[1]


def verdict_on(challenger: Predictor, incumbent: Predictor, columns: Columns, margin: float) -> Verdict:
    held_out = newest(columns)
    rule = GateRule(margin=margin)
    errors = served_errors(challenger, held_out, rule.tie_fraction)
    return judge(challenger, errors, incumbent, held_out, rule)


def test_a_model_as_good_as_the_incumbent_does_not_replace_it(samples_of: Make) -> None:
    incumbent, challenger = model_of(samples_of(n=3000, seed=1)), model_of(samples_of(n=3000, seed=2))
    verdict = verdict_on(challenger, incumbent, samples_of(n=2000, seed=3), margin=0.05)
    assert not verdict.is_accepted
    assert "not 5% below the incumbent" in verdict.reason
    assert verdict.incumbent_version == incumbent.manifest.model_version


def test_a_challenger_is_accepted_only_if_its_gain_exceeds_the_margin(samples_of: Make) -> None:
    few, many = model_of(samples_of(n=300)), model_of(samples_of(n=4000, seed=2))
    unseen = samples_of(n=2000, seed=3)
    verdict = verdict_on(many, few, unseen, margin=0.0)
    assert verdict.is_accepted
    assert verdict.incumbent_error is not None
    gain = 1 - verdict.error / verdict.incumbent_error
    assert verdict_on(many, few, unseen, margin=gain - 0.001).is_accepted
    assert not verdict_on(many, few, unseen, margin=gain + 0.001).is_accepted


def test_an_incumbent_that_a_change_has_overtaken_is_replaced(samples_of: Make) -> None:
    """One backend has become half as fast: the incumbent would have to learn that first."""
    before, after = samples_of(n=2000), samples_of(n=2000, seed=2)
    after["at_s"] += 1000
    after["ttft_s"] *= np.where(after["backend"] == "vllm-1", 2.0, 1.0)
    both = {name: np.concatenate([before[name], after[name]]) for name in before}
    training = fit(observations(both), incumbent=model_of(before), seed=1, trained_at_s=1.8e9)
    assert training.verdict.is_accepted
    assert training.verdict.incumbent_error is not None
    assert training.verdict.error < 0.95 * training.verdict.incumbent_error


def test_a_useless_first_model_is_refused(samples_of: Make) -> None:
    columns = samples_of(n=3000)
    columns["ttft_s"] = np.exp(np.random.default_rng(0).uniform(np.log(1.0), np.log(9.9), 3000))
    training = fit(observations(columns), rule=GateRule(max_median_error=0.3), seed=1, trained_at_s=1.7e9)
    assert not training.verdict.is_accepted
    assert "median relative error" in training.verdict.reason


def test_a_model_that_picks_worse_than_least_load_is_refused(samples_of: Make) -> None:
    columns = samples_of(n=2000, is_balanced=False)
    good, held_out = model_of(columns), newest(columns)
    errors = replace(served_errors(good, held_out, DEFAULT_GATE_RULE.tie_fraction), pairwise_accuracy=0.3)
    verdict = judge(good, errors, None, held_out, DEFAULT_GATE_RULE)
    assert not verdict.is_accepted
    assert "least load" in verdict.reason


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda rows: np.full(len(rows), np.nan), "not finite"),
        (lambda rows: np.full(len(rows), 9.0), "out of all proportion"),
        (lambda rows: 1.0 - rows[:, FEATURES.index("load")] / 1000, "a larger load"),
    ],
)
def test_a_model_with_implausible_predictions_is_refused(
    samples_of: Make,
    model_file: ModelFile,
    answer: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]],
    complaint: str,
) -> None:
    class Lying(Predictor):
        def predict_log_ttft(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return answer(rows)

    lying = Lying(model_file.manifest, booster_of(model_file.trees))
    verdict = judge(lying, model_file.manifest.held_out_errors, None, newest(samples_of()), DEFAULT_GATE_RULE)
    assert not verdict.is_accepted
    assert complaint in verdict.reason


def test_the_verdict_and_its_numbers_are_in_the_model_file(samples_of: Make) -> None:
    training = fit(
        observations(samples_of(n=3000)), incumbent=model_of(samples_of(n=300)), seed=1, trained_at_s=1.8e9
    )
    manifest = load(dump(training.model_file)).manifest
    assert manifest.verdict == training.verdict
    assert manifest.verdict.samples == manifest.samples.held_out
    assert manifest.verdict.error == manifest.held_out_errors.mean_abs_log_error
