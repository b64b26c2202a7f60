import numpy as np
import pytest

from extproc.fleet.prediction_record import PredictedOutcome, PredictionRecord, RankRecord, TrustRule
from extproc.learning.drift import DriftWatch
from extproc.learning.features import TERMS

RULE = TrustRule(min_outcomes=8)

Columns = dict[str, np.ndarray]


def samples(count: int = 20, *, corrected: float = 2.0, plain: float = 1.2, **changes: object) -> Columns:
    """Requests that were predicted to take `corrected` and `plain` times what they took."""
    columns: Columns = {
        "backend": np.full(count, "vllm-1", dtype=object),
        "is_stream": np.ones(count, bool),
        "is_clean": np.ones(count, bool),
        "model_version": np.full(count, "v1", dtype=object),
        "predicted_ttft_s": np.full(count, 1.5 * corrected),
        "ttft_s": np.full(count, 1.5),
    } | {name: np.zeros(count) for name in TERMS}
    columns["own_prompt_s"] = np.full(count, 1.5 * plain)
    for name, value in changes.items():
        columns[name] = np.full(count, value, dtype=columns[name].dtype)
    return columns


def watch_after(*batches: Columns) -> DriftWatch:
    watch = DriftWatch(RULE)
    watch.begin("v1")
    for batch in batches:
        watch.observe(batch)
    return watch


def test_a_model_that_is_better_than_none_has_not_drifted() -> None:
    assert not watch_after(samples(500, corrected=1.1)).drifted


def test_a_model_that_has_become_worse_than_none_has_drifted_on_that_backend() -> None:
    better = samples(20, corrected=1.1)
    watch = watch_after(better, samples(30), samples(30, corrected=1.1, backend="vllm-2"))
    assert set(watch.drifted) == {"vllm-1"}
    assert 0 < watch.drifted["vllm-1"] < 30


def test_too_short_is_as_wrong_as_too_long() -> None:
    assert watch_after(samples(corrected=0.5)).drifted


def test_a_few_outcomes_are_no_drift() -> None:
    assert not watch_after(samples(7, corrected=50.0)).drifted
    assert watch_after(samples(8, corrected=50.0)).drifted


def test_a_drift_stays_seen() -> None:
    assert watch_after(samples(), samples(100, corrected=1.0)).drifted["vllm-1"] > 100


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
        {"own_prompt_s": np.nan},
        {"own_prompt_s": 0.0},
        {"backend": None},
        {"backend": 7},
    ],
)
def test_samples_that_say_nothing_about_the_model_are_no_drift(harmless: dict[str, object]) -> None:
    assert not watch_after(samples(100, **harmless)).drifted


def test_another_model_starts_afresh_and_the_same_one_does_not() -> None:
    watch = watch_after(samples())
    watch.begin("v1")
    assert watch.drifted
    watch.begin("v2")
    assert not watch.drifted
    watch.observe(samples())
    assert not watch.drifted


def test_without_a_model_there_is_no_drift() -> None:
    watch = watch_after(samples())
    watch.begin(None)
    watch.observe(samples(model_version=None))
    assert not watch.drifted


def test_thousands_of_names_are_not_all_remembered() -> None:
    names = samples(10_000)
    names["backend"] = np.array([f"poison-{n}" for n in range(10_000)], dtype=object)
    assert len(watch_after(*[names] * 8).drifted) == 4096


def test_the_rule_is_that_of_the_sidecar() -> None:
    """What stands the model down in a sidecar is a drift at the same outcome."""
    record = PredictionRecord(RULE, RankRecord())
    record.begin("v1", RankRecord())
    watch = watch_after()
    for n, corrected in enumerate([1.1] * 60 + [2.0] * 60):
        record.observe("v1", PredictedOutcome("vllm-1", 0.0, 9.0, 0.0, np.log(corrected), np.log(1.2)))
        watch.observe(samples(1, corrected=corrected))
        assert ("vllm-1" in watch.drifted) == (n >= RULE.min_outcomes - 1 and not record.is_trusted)
        if watch.drifted:
            assert n >= 60
            return
    raise AssertionError("the sidecar went on trusting")
