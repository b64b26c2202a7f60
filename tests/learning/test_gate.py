from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from extproc.learning.dataset import Observations, clean_observations, medium_zone, split_by_time
from extproc.learning.features import DEFAULT_ZONE
from extproc.learning.fit import fit
from extproc.learning.gate import corrected_errors, judge
from extproc.learning.manifest import Verdict
from extproc.learning.model_file import dump, load
from extproc.learning.model_rules import DEFAULT_GATE_RULE, GateRule
from extproc.learning.predictor import Predictor

Columns = dict[str, np.ndarray[Any, Any]]
Make = Callable[..., Columns]


def observations(columns: Columns) -> Observations:
    return clean_observations(columns)[0]


def model_of(columns: Columns) -> Predictor:
    return load(dump(fit(observations(columns), seed=1, trained_at_s=1.7e9).model_file))


def newest(columns: Columns) -> Observations:
    return split_by_time(medium_zone(observations(columns), DEFAULT_ZONE), 0.25)[1]


def verdict_on(
    challenger: Predictor, incumbent: Predictor | None, columns: Columns, margin: float
) -> Verdict:
    held_out = newest(columns)
    errors = corrected_errors(challenger, held_out)
    return judge(challenger, errors, incumbent, held_out, GateRule(margin=margin))


def as_estimated(columns: Columns) -> Columns:
    """The same, with TTFTs from which the estimates differ by noise alone."""
    noise = np.random.default_rng(5).lognormal(0, 0.2, len(columns["ttft_s"]))
    return columns | {"ttft_s": (columns["own_prompt_s"] + columns["turns_s"]) * noise}


def test_a_model_that_is_no_better_than_no_model_is_refused(samples_of: Make) -> None:
    columns = as_estimated(samples_of(n=4000))
    training = fit(observations(columns), seed=1, trained_at_s=1.7e9)
    assert not training.verdict.is_accepted
    assert "not 5% below that of the estimate alone" in training.verdict.reason
    assert training.verdict.error >= 0.95 * training.verdict.plain_error


def test_a_first_model_that_corrects_the_estimate_is_accepted(samples_of: Make) -> None:
    verdict = fit(observations(samples_of(n=3000)), seed=1, trained_at_s=1.7e9).verdict
    assert verdict.is_accepted
    assert verdict.reason == "better than the estimate alone"
    assert verdict.error < 0.7 * verdict.plain_error


def test_a_model_as_good_as_the_incumbent_does_not_replace_it(samples_of: Make) -> None:
    incumbent, challenger = model_of(samples_of(n=3000, seed=1)), model_of(samples_of(n=3000, seed=2))
    verdict = verdict_on(challenger, incumbent, samples_of(n=2000, seed=3), margin=0.05)
    assert not verdict.is_accepted
    assert "not 5% below the incumbent" in verdict.reason
    assert verdict.incumbent_version == incumbent.manifest.model_version


def test_a_challenger_is_accepted_only_if_its_gain_exceeds_the_margin(samples_of: Make) -> None:
    few, many = model_of(samples_of(n=400)), model_of(samples_of(n=4000, seed=2))
    unseen = samples_of(n=2000, seed=3)
    verdict = verdict_on(many, few, unseen, margin=0.0)
    assert verdict.is_accepted
    assert verdict.incumbent_error is not None
    gain = 1 - verdict.error / verdict.incumbent_error
    assert verdict_on(many, few, unseen, margin=gain - 0.001).is_accepted
    assert not verdict_on(many, few, unseen, margin=gain + 0.001).is_accepted


def test_an_incumbent_that_a_change_has_overtaken_is_replaced(samples_of: Make) -> None:
    """New traffic: the estimate is wrong by a factor that the incumbent has never seen."""
    before, after = samples_of(n=2000), samples_of(n=3000, seed=2)
    after["at_s"] += 1000
    after["ttft_s"] *= 1.5
    both = {name: np.concatenate([before[name], after[name]]) for name in before}
    training = fit(observations(both), incumbent=model_of(before), seed=1, trained_at_s=1.8e9)
    assert training.verdict.is_accepted
    assert training.verdict.incumbent_error is not None
    assert training.verdict.error < 0.95 * training.verdict.incumbent_error


def test_a_model_that_ranks_worse_than_the_estimate_is_refused(samples_of: Make) -> None:
    columns = samples_of(n=2000, is_balanced=False)
    good, held_out = model_of(columns), newest(columns)
    errors = replace(corrected_errors(good, held_out), pairwise_accuracy=0.3)
    verdict = judge(good, errors, None, held_out, DEFAULT_GATE_RULE)
    assert not verdict.is_accepted
    assert "picks the faster of two backends in 30.0%" in verdict.reason


def test_a_model_of_which_an_error_is_no_number_is_refused(samples_of: Make) -> None:
    columns = samples_of(n=2000)
    good, held_out = model_of(columns), newest(columns)
    errors = replace(corrected_errors(good, held_out), mean_abs_log_error=float("nan"))
    assert not judge(good, errors, None, held_out, DEFAULT_GATE_RULE).is_accepted


def test_the_verdict_and_its_numbers_are_in_the_model_file(samples_of: Make) -> None:
    training = fit(
        observations(samples_of(n=3000)), incumbent=model_of(samples_of(n=400)), seed=1, trained_at_s=1.8e9
    )
    manifest = load(dump(training.model_file)).manifest
    assert manifest.verdict == training.verdict
    assert manifest.verdict.samples == manifest.samples.held_out
    assert manifest.verdict.error == pytest.approx(manifest.held_out_errors.mean_abs_log_error)
