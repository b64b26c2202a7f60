import lightgbm
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lightgbm.basic import LightGBMError

from extproc.learning.features import FEATURES, MONOTONE
from extproc.learning.model_file import load
from extproc.learning.predictor import Forest, Predictor


@pytest.fixture(scope="module")
def predictor(model_bytes: bytes) -> Predictor:
    return load(model_bytes)


def typical(predictor: Predictor) -> np.ndarray:
    """The middle of the training range, shape (n_features,)."""
    return np.array([sum(predictor.manifest.training_range[name]) / 2 for name in FEATURES])


def changed(predictor: Predictor, feature: str, value: float) -> np.ndarray:
    row = typical(predictor)
    row[FEATURES.index(feature)] = value
    return row[np.newaxis]


def test_no_rows_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict_log_ttft(np.empty((0, len(FEATURES)))).shape == (0,)
    assert predictor.in_range(np.empty((0, len(FEATURES)))).shape == (0,)


def test_a_row_is_predicted_alike_alone_and_among_others(predictor: Predictor) -> None:
    rows = np.random.default_rng(0).uniform(0, 100, (16, len(FEATURES)))
    together = predictor.predict_log_ttft(rows)
    assert together.tolist() == [predictor.predict_log_ttft(row[np.newaxis])[0] for row in rows]


numbers = st.floats(0, 10_000)


@given(st.tuples(*[numbers] * len(FEATURES)), st.sampled_from(np.flatnonzero(MONOTONE).tolist()), numbers)
def test_more_of_a_monotone_feature_never_predicts_a_shorter_wait(
    predictor: Predictor, row: tuple[float, ...], feature: int, more: float
) -> None:
    rows = np.array([row, row])
    rows[1, feature] += more
    less_s, more_s = predictor.predict_log_ttft(rows)
    assert less_s <= more_s


def test_predictions_are_finite_for_any_number(predictor: Predictor) -> None:
    rows = np.full((4, len(FEATURES)), [[np.nan], [np.inf], [-np.inf], [1e308]])
    assert np.isfinite(predictor.predict_log_ttft(rows)).all()


def test_the_middle_of_the_training_range_is_in_range(predictor: Predictor) -> None:
    assert predictor.in_range(typical(predictor)[np.newaxis]).tolist() == [True]


@pytest.mark.parametrize("feature", ["num_running", "load", "input_tokens"])
@pytest.mark.parametrize("side", [-1, 1])
def test_what_carries_the_prediction_must_lie_in_the_trained_range(
    predictor: Predictor, feature: str, side: int
) -> None:
    low, high = predictor.manifest.training_range[feature]
    edge, span = (low, high - low) if side < 0 else (high, high - low)
    assert predictor.in_range(changed(predictor, feature, edge)).all()
    assert predictor.in_range(changed(predictor, feature, edge + side * 0.05 * span)).all()
    assert not predictor.in_range(changed(predictor, feature, edge + side * (0.3 * span + 2))).any()


def test_a_few_waiting_requests_do_not_switch_off_a_model_that_never_saw_one(predictor: Predictor) -> None:
    assert predictor.manifest.training_range["num_waiting"] == (0.0, 0.0)
    assert predictor.in_range(changed(predictor, "num_waiting", 5)).all()
    assert not predictor.in_range(changed(predictor, "num_waiting", 50)).any()


def test_somewhat_more_kv_cache_than_ever_seen_is_in_range(predictor: Predictor) -> None:
    high = predictor.manifest.training_range["kv_cache_fraction"][1]
    assert predictor.in_range(changed(predictor, "kv_cache_fraction", high + 0.1)).all()


@pytest.mark.parametrize("feature", FEATURES)
def test_a_row_with_an_unknown_number_is_never_in_range(predictor: Predictor, feature: str) -> None:
    assert not predictor.in_range(changed(predictor, feature, np.nan)).any()


N_FEATURES = 3


def trained(n_features: int = N_FEATURES) -> lightgbm.Booster:
    rng = np.random.default_rng(1)
    rows = rng.random((500, n_features)) * 100
    target = np.log1p(rows).sum(axis=1)
    parameters = {"num_leaves": 15, "num_threads": 1, "verbose": -1, "seed": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, target), num_boost_round=20)
    return lightgbm.Booster(model_str=booster.model_to_string())


BOOSTER = trained()
FOREST = Forest(BOOSTER)

any_number = st.floats() | st.floats(0, 100)
any_rows = st.integers(1, 20).flatmap(lambda n: arrays(np.float64, (n, N_FEATURES), elements=any_number))


@given(any_rows)
def test_the_answer_is_lightgbms_own_to_the_last_bit(rows: npt.NDArray[np.float64]) -> None:
    assert FOREST.predict(rows).tobytes() == BOOSTER.predict(rows, num_threads=1).tobytes()


def test_rows_may_lie_in_memory_in_any_order() -> None:
    rows = np.random.default_rng(2).random((8, N_FEATURES)) * 100
    for other in (np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2]):
        assert FOREST.predict(other).tolist() == FOREST.predict(rows).tolist()


def test_rows_with_another_number_of_features_are_refused() -> None:
    with pytest.raises(LightGBMError, match="number of features"):
        FOREST.predict(np.zeros((2, N_FEATURES + 1)))


def test_the_booster_lives_as_long_as_its_trees_are_asked() -> None:
    forest = Forest(trained())
    rows = np.random.default_rng(3).random((4, N_FEATURES)) * 100
    assert forest.predict(rows).tolist() == FOREST.predict(rows).tolist()
