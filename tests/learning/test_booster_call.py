import lightgbm
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lightgbm.basic import LightGBMError

from extproc.learning.booster_call import Forest

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
