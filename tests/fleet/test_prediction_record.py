import numpy as np
import pytest

from extproc.fleet.prediction_record import TrackRecord, TrustRule


@pytest.fixture
def record() -> TrackRecord:
    record = TrackRecord(2, TrustRule(error_factor=2.0, error_floor=0.2, min_outcomes=8))
    record.begin("v1")
    return record


def corrections(record: TrackRecord) -> list[float]:
    return [record.correction(slot) for slot in (0, 1)]


def test_a_correction_starts_at_zero_and_settles_within_tens_of_outcomes(record: TrackRecord) -> None:
    assert corrections(record) == [0.0, 0.0]
    for _ in range(30):
        record.observe(0, "v1", model_log_ttft=0.0, ttft_s=2.0)
    assert corrections(record) == pytest.approx([np.log(2.0), 0.0], abs=0.05)


def test_a_machine_of_half_the_speed_is_no_reason_to_doubt_the_model(record: TrackRecord) -> None:
    trusted = []
    for _ in range(40):
        record.observe(0, "v1", model_log_ttft=0.0, ttft_s=2.0)
        trusted.append(record.is_trusted(0, promised_error=0.1))
    assert all(trusted)


def test_predictions_that_are_off_are_not_trusted_until_they_are_good_again(record: TrackRecord) -> None:
    for ttft_s in (0.2, 5.0) * 15:
        record.observe(0, "v1", model_log_ttft=0.0, ttft_s=ttft_s)
    assert [record.is_trusted(slot, promised_error=0.1) for slot in (0, 1)] == [False, True]
    for _ in range(60):
        record.observe(0, "v1", model_log_ttft=0.0, ttft_s=1.0)
    assert record.is_trusted(0, promised_error=0.1)


def test_a_backend_that_becomes_slower_is_doubted_and_then_corrected(record: TrackRecord) -> None:
    for _ in range(40):
        record.observe(0, "v1", model_log_ttft=0.0, ttft_s=1.0)
    trusted = []
    for _ in range(60):
        record.observe(0, "v1", model_log_ttft=0.0, ttft_s=4.0)
        trusted.append(record.is_trusted(0, promised_error=0.1))
    assert not all(trusted)
    assert trusted[-1]


def test_a_new_model_starts_with_a_clean_record(record: TrackRecord) -> None:
    record.observe(0, "v1", model_log_ttft=0.0, ttft_s=9.0)
    record.begin("v2")
    assert corrections(record) == [0.0, 0.0]
    assert record.error(0) is None


def test_late_outcomes_of_the_previous_model_are_ignored(record: TrackRecord) -> None:
    record.begin("v2")
    record.observe(0, "v1", model_log_ttft=0.0, ttft_s=9.0)
    assert record.error(0) is None


def test_a_backend_that_takes_over_a_slot_has_no_record(record: TrackRecord) -> None:
    record.observe(0, "v1", model_log_ttft=0.0, ttft_s=9.0)
    record.forget(0)
    assert record.error(0) is None


def test_a_correction_starts_at_what_the_model_file_says(record: TrackRecord) -> None:
    record.begin("v2", {1: 0.7})
    assert corrections(record) == [0.0, 0.7]
    record.observe(0, "v2", model_log_ttft=0.0, ttft_s=2.0)
    record.observe(1, "v2", model_log_ttft=0.0, ttft_s=4.0)
    unknown, known = np.array(corrections(record)) / np.log([2.0, 4.0])
    assert unknown == pytest.approx(0.5), "what is unknown is learned at once"
    assert 0.5 < known < 0.65, "what is known moves less"
    record.begin("v3")
    assert corrections(record) == [0.0, 0.0]


def test_a_backend_that_joins_starts_at_what_the_model_file_says_of_it(record: TrackRecord) -> None:
    record.forget(1, -0.3)
    assert corrections(record) == [0.0, -0.3]


def test_noise_hardly_moves_a_settled_correction_and_a_lasting_change_does(record: TrackRecord) -> None:
    rng = np.random.default_rng(0)
    for noise in rng.normal(0, 0.1, 300):
        record.observe(0, "v1", model_log_ttft=0.0, ttft_s=float(np.exp(noise)))
    settled = []
    for noise in rng.normal(0, 0.1, 200):
        record.observe(0, "v1", model_log_ttft=0.0, ttft_s=float(np.exp(noise)))
        settled.append(record.correction(0))
    assert np.std(settled) < 0.02
    for noise in rng.normal(0, 0.1, 60):
        record.observe(0, "v1", model_log_ttft=0.0, ttft_s=float(2.0 * np.exp(noise)))
    assert record.correction(0) == pytest.approx(np.log(2.0), abs=0.15)
