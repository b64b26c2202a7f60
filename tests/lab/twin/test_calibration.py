from dataclasses import replace

import pytest
from support.recorded_loads import LIMITS, SERVER, recorded

from extproc.errors import CalibrationError
from extproc.lab.twin.agreement import agreement
from extproc.lab.twin.calibration import FITTED, Fit, fit_profile
from extproc.lab.twin.recording import recording_of

RATES = (0.5, 1.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def fit() -> Fit:
    """To a server whose times scatter by 10 %."""
    return fit_profile(recording_of(recorded(RATES, 150, 30, noise=0.1)), LIMITS)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("base_step_s", 0.1),
        ("prefill_token_s", 0.1),
        ("attention_pair_s", 0.35),
        ("decode_sequence_s", 0.25),
        ("request_s", 0.35),
        ("request_token_s", 0.6),
    ],
)
def test_the_times_of_a_known_server_are_found(fit: Fit, name: str, tolerance: float) -> None:
    assert getattr(fit.profile, name) == pytest.approx(getattr(SERVER, name), rel=tolerance)


def test_the_error_of_a_request_is_that_of_the_server(fit: Fit) -> None:
    half_of_a_normal_scatter = 0.0675
    assert fit.typical_error == pytest.approx(half_of_a_normal_scatter, abs=0.02)


def test_halves_of_the_requests_agree_on_the_time_that_matters_most(fit: Fit) -> None:
    assert set(fit.halves_differ) == set(FITTED)
    assert 0 < fit.halves_differ["prefill_token_s"] < 0.2


@pytest.mark.parametrize(
    ("rates", "prompt", "output"),
    [((0.6, 0.6, 0.6), 600, 20), ((3.0,), 400, 30), ((1.0, 1.0), 30, 100), ((5.0,), 30, 100)],
    ids=["long and idle", "long and overloaded", "short and idle", "short and overloaded"],
)
def test_other_lengths_and_rates_are_predicted(
    fit: Fit, rates: tuple[float, ...], prompt: float, output: float
) -> None:
    found = agreement("", recording_of(recorded(rates, prompt, output, seed=7)), fit.profile, LIMITS)
    assert found.is_within
    assert abs(found.ttft_p50_s.error) < 0.15
    assert abs(found.token_s.error) < 0.15


def test_another_batch_size_is_predicted(fit: Fit) -> None:
    limits = replace(LIMITS, max_num_seqs=16)
    load = recorded((3.0,), 150, 60, seed=8, limits=limits)
    assert agreement("", recording_of(load), fit.profile, limits).is_within


def test_the_same_load_gives_the_same_profile_and_progress_only_grows_to_one() -> None:
    load, shares = recording_of(recorded((1.0,), 100, 10, noise=0.1)), list[float]()
    assert fit_profile(load, LIMITS, shares.append) == fit_profile(load, LIMITS)
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1


def test_a_slower_server_is_not_within() -> None:
    load = recording_of(recorded((3.0,), 150, 30, server=replace(SERVER, speed=0.7)))
    found = agreement("slow", load, SERVER, LIMITS)
    assert not found.is_within
    assert found.ttft_p50_s.error < -0.2


def test_a_request_that_the_kv_cache_cannot_hold_is_refused() -> None:
    load = recording_of(recorded((2.0,), 100, 10))
    small = replace(LIMITS, kv_cache_tokens=256)
    with pytest.raises(CalibrationError, match="does not fit a KV cache of 256"):
        fit_profile(load, small)
    with pytest.raises(CalibrationError, match="does not fit a KV cache of 256"):
        agreement("", load, SERVER, small)
