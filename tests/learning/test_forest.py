import subprocess
import sys

import lightgbm
import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from extproc.learning.features import FEATURES, ROW
from extproc.learning.forest import Forest
from extproc.learning.trees import MAX_LEAVES, MAX_TREES, Split, Tree, Trees, trees_of

N_FEATURES = len(FEATURES)


def trained() -> lightgbm.Booster:
    """A model of the largest size."""
    rng = np.random.default_rng(1)
    rows = rng.random((3000, N_FEATURES)) * 100
    target = np.log1p(rows).sum(axis=1) / 10 + rng.normal(0, 0.1, 3000)
    parameters = {"num_leaves": MAX_LEAVES, "num_threads": 1, "verbose": -1, "seed": 1, "use_missing": False}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, target), num_boost_round=MAX_TREES)


BOOSTER = trained()
TREES = trees_of(BOOSTER)
FOREST = Forest(TREES)

any_number = st.floats(-1e6, 1e6) | st.floats(0, 100)
any_rows = st.integers(1, 20).flatmap(lambda n: arrays(np.float64, (n, N_FEATURES), elements=any_number))


@given(any_rows)
def test_the_answer_is_lightgbms_own(rows: npt.NDArray[np.float64]) -> None:
    np.testing.assert_allclose(FOREST.sums(rows), BOOSTER.predict(rows, num_threads=1), rtol=0, atol=1e-12)


@given(any_rows)
def test_a_few_packed_rows_get_the_same_answers(rows: npt.NDArray[np.float64]) -> None:
    assert FOREST.of_few([ROW.pack(*row) for row in rows]) == FOREST.sums(rows).tolist()


def walked(tree: Tree, row: npt.NDArray[np.float64]) -> float:
    """What a tree says of a row."""
    while isinstance(tree, Split):
        tree = tree.right if row[tree.feature] > tree.threshold else tree.left
    return tree


def grown(splits: int) -> st.SearchStrategy[Tree]:
    """Trees of any shape with at most this many splits."""
    leaves = st.floats(-0.5, 0.5)
    if not splits:
        return leaves
    return st.integers(0, splits - 1).flatmap(
        lambda left: (
            st.builds(
                Split,
                st.integers(0, N_FEATURES - 1),
                st.floats(0, 100),
                grown(left),
                grown(splits - 1 - left),
            )
            | leaves
        )
    )


@settings(max_examples=50)
@given(st.lists(grown(MAX_LEAVES - 1), min_size=1, max_size=4).map(tuple), any_rows)
def test_trees_of_every_shape_are_asked_as_if_they_were_walked(
    trees: Trees, rows: npt.NDArray[np.float64]
) -> None:
    expected = [sum(walked(tree, row) for tree in trees) for row in rows]
    np.testing.assert_allclose(Forest(trees).sums(rows), expected, rtol=0, atol=1e-12)


def test_answers_are_finite_for_any_number_and_one_that_is_not_known_counts_as_little() -> None:
    rows = np.full((4, N_FEATURES), [[np.nan], [np.inf], [-np.inf], [1e308]])
    found = FOREST.sums(rows)
    assert np.isfinite(found).all()
    assert found[0] == found[2]


def test_many_rows_are_asked_in_parts() -> None:
    rows = np.random.default_rng(2).random((10_000, N_FEATURES)) * 100
    np.testing.assert_allclose(FOREST.sums(rows), BOOSTER.predict(rows, num_threads=1), rtol=0, atol=1e-12)


def test_no_rows_get_no_answers() -> None:
    assert FOREST.sums(np.empty((0, N_FEATURES))).shape == (0,)


def test_a_sidecar_does_not_load_lightgbm() -> None:
    program = "import sys, extproc.app, extproc.learning.model_in_use; assert 'lightgbm' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
