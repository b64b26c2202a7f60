import numpy as np
import pytest
from support.build import trust_rule

from extproc.fleet.prediction_record import PredictionRecord


def a_record(version: str | None = "v1", offset: float | None = None) -> PredictionRecord:
    record = PredictionRecord(trust_rule(error_factor=2.0, error_floor=0.2, min_outcomes=8))
    record.begin(version, offset)
    return record


@pytest.fixture
def record() -> PredictionRecord:
    return a_record()


def test_a_correction_starts_at_zero_and_settles_within_tens_of_outcomes(record: PredictionRecord) -> None:
    assert record.correction == 0.0
    for _ in range(30):
        record.observe("v1", model_log_ttft=0.0, ttft_s=2.0)
    assert record.correction == pytest.approx(np.log(2.0), abs=0.05)


def test_the_outcomes_of_one_backend_say_nothing_of_another(record: PredictionRecord) -> None:
    other = a_record()
    for ttft_s in (0.2, 5.0) * 15:
        record.observe("v1", model_log_ttft=0.0, ttft_s=ttft_s)
    assert (other.correction, other.error) == (0.0, None)
    assert other.is_trusted(promised_error=0.1)


def test_a_machine_of_half_the_speed_is_no_reason_to_doubt_the_model(record: PredictionRecord) -> None:
    trusted = []
    for _ in range(40):
        record.observe("v1", model_log_ttft=0.0, ttft_s=2.0)
        trusted.append(record.is_trusted(promised_error=0.1))
    assert all(trusted)


def test_predictions_that_are_off_are_not_trusted_until_they_are_good_again(record: PredictionRecord) -> None:
    for ttft_s in (0.2, 5.0) * 15:
        record.observe("v1", model_log_ttft=0.0, ttft_s=ttft_s)
    assert not record.is_trusted(promised_error=0.1)
    for _ in range(60):
        record.observe("v1", model_log_ttft=0.0, ttft_s=1.0)
    assert record.is_trusted(promised_error=0.1)


def test_a_backend_that_becomes_slower_is_doubted_and_then_corrected(record: PredictionRecord) -> None:
    for _ in range(40):
        record.observe("v1", model_log_ttft=0.0, ttft_s=1.0)
    trusted = []
    for _ in range(60):
        record.observe("v1", model_log_ttft=0.0, ttft_s=4.0)
        trusted.append(record.is_trusted(promised_error=0.1))
    assert not all(trusted)
    assert trusted[-1]


def test_a_new_model_starts_without_errors_and_without_a_correction(record: PredictionRecord) -> None:
    record.observe("v1", model_log_ttft=0.0, ttft_s=9.0)
    record.begin("v2")
    assert record.correction == 0.0
    assert record.error is None


def test_the_same_model_again_changes_nothing(record: PredictionRecord) -> None:
    record.observe("v1", model_log_ttft=0.0, ttft_s=9.0)
    correction, error = record.correction, record.error
    record.begin("v1", 0.7)
    assert (record.correction, record.error) == (correction, error)


def test_late_outcomes_of_the_previous_model_are_ignored(record: PredictionRecord) -> None:
    record.begin("v2")
    record.observe("v1", model_log_ttft=0.0, ttft_s=9.0)
    assert record.error is None


def test_before_there_is_a_model_no_outcome_counts() -> None:
    record = PredictionRecord(trust_rule())
    record.observe("v1", model_log_ttft=0.0, ttft_s=9.0)
    assert (record.correction, record.error) == (0.0, None)


def test_a_correction_starts_at_the_offset_in_the_model_file(record: PredictionRecord) -> None:
    other = a_record("v2", 0.7)
    record.begin("v2")
    assert (record.correction, other.correction) == (0.0, 0.7)
    record.observe("v2", model_log_ttft=0.0, ttft_s=2.0)
    other.observe("v2", model_log_ttft=0.0, ttft_s=4.0)
    assert record.correction / np.log(2.0) == pytest.approx(0.5), "without an offset it is learned at once"
    assert 0.5 < other.correction / np.log(4.0) < 0.65, "an offset from the file moves less"
    other.begin("v3")
    assert other.correction == 0.0


def test_noise_hardly_moves_a_settled_correction_and_a_lasting_change_does(record: PredictionRecord) -> None:
    rng = np.random.default_rng(0)
    for noise in rng.normal(0, 0.1, 300):
        record.observe("v1", model_log_ttft=0.0, ttft_s=float(np.exp(noise)))
    settled = []
    for noise in rng.normal(0, 0.1, 200):
        record.observe("v1", model_log_ttft=0.0, ttft_s=float(np.exp(noise)))
        settled.append(record.correction)
    assert np.std(settled) < 0.02
    for noise in rng.normal(0, 0.1, 60):
        record.observe("v1", model_log_ttft=0.0, ttft_s=float(2.0 * np.exp(noise)))
    assert record.correction == pytest.approx(np.log(2.0), abs=0.15)
