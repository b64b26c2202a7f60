import numpy as np
import pytest

from extproc.fleet.prediction_record import PredictionRecord, TrustRule
from extproc.learning.dataset import Observations
from extproc.learning.drift import Drift, DriftWatch, since_drift
from extproc.learning.features import DEFAULT_ZONE, FEATURES
from extproc.learning.fit import MIN_SAMPLES

RULE = TrustRule(error_factor=2.0, error_floor=0.2, min_outcomes=8)

Columns = dict[str, np.ndarray]


def samples(count: int = 20, *, ratio: float = 2.0, at_s: float = 100.0, **changes: object) -> Columns:
    """Requests that took `ratio` times what had been predicted of them, one a second."""
    columns: Columns = {
        "at_s": at_s + np.arange(count, dtype=np.float64),
        "backend": np.full(count, "vllm-1", dtype=object),
        "is_stream": np.ones(count, bool),
        "is_clean": np.ones(count, bool),
        "model_version": np.full(count, "v1", dtype=object),
        "predicted_ttft_s": np.full(count, 1.5),
        "ttft_s": np.full(count, 1.5 * ratio),
    }
    for name, value in changes.items():
        columns[name] = np.full(count, value, dtype=columns[name].dtype)
    return columns


def watch_after(*batches: Columns, promised_error: float = 0.05) -> DriftWatch:
    watch = DriftWatch(RULE)
    watch.begin("v1", promised_error)
    for batch in batches:
        watch.observe(batch)
    return watch


def test_predictions_that_hold_are_no_drift() -> None:
    assert not watch_after(samples(500, ratio=1.15)).drifts


def test_a_backend_of_half_the_speed_has_drifted_since_the_running_error_said_so() -> None:
    [(name, drift)] = watch_after(samples(ratio=1.0, at_s=0.0), samples(ratio=2.0)).drifts.items()
    assert name == "vllm-1"
    assert 103.0 <= drift.since_s <= 106.0
    assert drift.samples == 120.0 - drift.since_s


def test_too_short_answers_are_a_drift_as_well() -> None:
    assert watch_after(samples(ratio=0.5)).drifts


def test_only_the_backend_that_changed_has_drifted() -> None:
    watch = watch_after(samples(), samples(ratio=1.0, backend="vllm-2"))
    assert set(watch.drifts) == {"vllm-1"}


def test_a_bad_promise_is_held_to_its_multiple() -> None:
    assert not watch_after(samples(200), promised_error=0.4).drifts
    assert watch_after(samples(200), promised_error=0.3).drifts


def test_a_few_outcomes_are_no_drift() -> None:
    assert not watch_after(samples(7, ratio=50.0)).drifts
    assert watch_after(samples(8, ratio=50.0)).drifts


def test_a_drift_stays_seen_when_the_correction_has_caught_up() -> None:
    watch = watch_after(samples(), samples(100, ratio=1.0, at_s=200.0))
    assert watch.drifts["vllm-1"].samples > 100


@pytest.mark.parametrize(
    "harmless",
    [
        {"is_clean": False},
        {"is_stream": False},
        {"model_version": "v0"},
        {"model_version": None},
        {"predicted_ttft_s": np.nan},
        {"predicted_ttft_s": -1.0},
        {"predicted_ttft_s": np.inf},
        {"ttft_s": np.nan},
        {"ttft_s": 0.0},
        {"ttft_s": np.inf},
        {"at_s": np.nan},
        {"backend": None},
        {"backend": 7},
    ],
)
def test_samples_that_say_nothing_about_the_model_are_no_drift(harmless: dict[str, object]) -> None:
    assert not watch_after(samples(100, **harmless)).drifts


def test_another_model_starts_afresh_and_the_same_one_does_not() -> None:
    watch = watch_after(samples())
    watch.begin("v1", 0.05)
    assert watch.drifts
    watch.begin("v2", 0.05)
    assert not watch.drifts
    watch.observe(samples())
    assert not watch.drifts


def test_without_a_model_there_is_no_drift() -> None:
    watch = watch_after(samples())
    watch.begin(None)
    watch.observe(samples(model_version=None))
    assert not watch.drifts


def test_thousands_of_names_are_not_all_remembered() -> None:
    names = samples(10_000)
    names["backend"] = np.array([f"poison-{n}" for n in range(10_000)], dtype=object)
    watch = watch_after(*[names] * 8)
    assert len(watch.drifts) == 4096


def test_the_rule_is_that_of_the_sidecar() -> None:
    rng = np.random.default_rng(3)
    slowness = np.repeat([0.0, 0.9, 0.0], [60, 20, 60])
    observed_s = np.exp(slowness + rng.normal(0, 0.1, len(slowness)))
    record = PredictionRecord(RULE)
    record.begin("v1", 0.0)
    watch = watch_after()
    for n, ttft_s in enumerate(observed_s.tolist()):
        predicted_s = float(np.exp(record.correction))
        record.observe("v1", 0.0, ttft_s)
        watch.observe(samples(1, at_s=float(n), predicted_ttft_s=predicted_s, ttft_s=ttft_s))
        if not record.is_trusted(0.05):
            assert watch.drifts["vllm-1"].since_s == n
            assert n >= 60
            return
        assert not watch.drifts
    raise AssertionError("the sidecar went on trusting")


def fleet_history(count: int) -> Observations:
    """Two backends in turn, one request a second, all of the medium zone but every tenth."""
    ttft_s = np.where(np.arange(count) % 10 == 9, 0.1, 2.0)
    return Observations(
        at_s=np.arange(count, dtype=np.float64),
        features=np.zeros((count, len(FEATURES))),
        ttft_s=ttft_s,
        backend=(np.arange(count) % 2).astype(np.intp),
        fleet=("vllm-1", "vllm-2"),
    )


def test_without_drift_everything_is_used() -> None:
    history = fleet_history(100)
    assert since_drift(history, {}, DEFAULT_ZONE) is history


def test_a_drifted_backends_older_samples_are_left_out_and_those_of_others_weigh_twice_the_new() -> None:
    used = since_drift(fleet_history(10_000), {"vllm-1": Drift(9_800.0)}, DEFAULT_ZONE)
    is_old = used.at_s < 9_800.0
    is_medium = used.ttft_s >= 1.0
    assert set(used.backend[is_old]) == {1}
    assert set(used.backend[~is_old]) == {0, 1}
    assert (is_old & is_medium).sum() == 2 * (~is_old & is_medium).sum() == 2 * 180
    assert used.at_s[-1] == 9_999.0


def test_a_short_drift_leaves_enough_to_make_a_model_from() -> None:
    used = since_drift(fleet_history(10_000), {"vllm-1": Drift(9_990.0)}, DEFAULT_ZONE)
    assert (used.ttft_s >= 1.0).sum() == MIN_SAMPLES


def test_a_drift_of_a_backend_without_samples_leaves_the_others() -> None:
    drifts = {"gone": Drift(50.0), "vllm-2": Drift(0.0)}
    assert len(since_drift(fleet_history(100), drifts, DEFAULT_ZONE)) == 100
