import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.learning.analysis.broken_stick import (
    BrokenStick,
    fit_stick,
    load_bins,
    medians_of,
    smooth_loss,
)


@settings(max_examples=25, deadline=None)
@given(
    knee=st.integers(8, 80),
    before_s=st.floats(0.001, 0.03),
    after_s=st.floats(0.2, 2.0),
    seed=st.integers(0, 1000),
)
def test_the_knee_of_a_noisy_stick_is_found(knee: int, before_s: float, after_s: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    load = rng.integers(0, 3 * knee, 2000).astype(float)
    ttft_s = 0.1 + before_s * load + (after_s - before_s) * np.maximum(load - knee, 0)
    fitted = fit_stick(medians_of(load, ttft_s * np.exp(rng.normal(0, 0.2, 2000))), 0.3)
    assert fitted is not None
    stick, _ = fitted
    assert stick.knee == pytest.approx(knee, rel=0.1, abs=1)
    assert stick.slope_after_s == pytest.approx(after_s, rel=0.1)


def test_a_flood_of_idle_samples_and_outliers_do_not_move_the_knee() -> None:
    rng = np.random.default_rng(1)
    load = np.concatenate([rng.integers(0, 100, 1000), np.zeros(100_000)]).astype(float)
    ttft_s = 0.2 + 0.5 * np.maximum(load - 30, 0)
    ttft_s[:50] = 500.0
    fitted = fit_stick(medians_of(load, ttft_s), 0.3)
    assert fitted is not None
    assert fitted[0].knee == pytest.approx(30, abs=1.5)


def test_a_ttft_that_falls_before_the_knee_is_taken_as_level() -> None:
    load = np.arange(100.0)
    fitted = fit_stick(medians_of(load, np.maximum(1.0 - 0.005 * load, 0.6 * (load - 50))), 0.3)
    assert fitted is not None
    assert fitted[0].slope_before_s == 0
    assert fitted[0].knee == pytest.approx(51, abs=2)


def test_a_parabola_fits_a_smooth_bend_better_and_a_kink_worse() -> None:
    load = np.arange(100.0)
    for ttft_s, is_smooth in ((0.1 + 0.002 * load**2, True), (0.1 + np.maximum(load - 50, 0), False)):
        fitted = fit_stick(medians_of(load, ttft_s), 0.3)
        assert fitted is not None
        assert (smooth_loss(medians_of(load, ttft_s), 0.3) < fitted[1]) is is_smooth


def test_few_different_loads_have_no_stick() -> None:
    load = np.repeat(np.arange(5.0), 100)
    assert fit_stick(medians_of(load, load), 0.3) is None


def test_a_ttft_that_falls_with_load_fits_no_stick() -> None:
    load = np.arange(50.0)
    fitted = fit_stick(medians_of(load, 10 - 0.1 * load), 0.3)
    assert fitted is not None
    assert fitted[1] == np.inf


def test_medians_keep_whole_small_loads_apart() -> None:
    load = np.repeat([0.0, 1.0, 2.0, 3.0, 100.0], 3)
    found = medians_of(load, np.tile([1.0, 2.0, 9.0], 5))
    assert found.load.tolist() == [0, 1, 2, 3, 100]
    assert found.ttft_s.tolist() == [2.0] * 5
    assert found.weight.tolist() == pytest.approx([0.3] * 5)


@pytest.mark.parametrize(("ttft_s", "load"), [(0.1, 0), (0.5, 0), (1.0, 5), (1.5, 10), (3.5, 12)])
def test_the_load_at_a_ttft_is_on_the_stick(ttft_s: float, load: float) -> None:
    assert BrokenStick(10, 0.5, 0.1, 1.0).load_at(ttft_s) == pytest.approx(load)


def test_no_samples_are_in_no_bins() -> None:
    assert load_bins(np.zeros(0)).tolist() == []
