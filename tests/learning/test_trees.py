from typing import Any

import lightgbm
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.errors import ModelFileError
from extproc.learning.features import FEATURES
from extproc.learning.forest import Forest
from extproc.learning.trees import MAX_LEAVES, MAX_REACH, MAX_TREES, Trees, check_trees, trees_of

ROWS = np.random.default_rng(3).uniform(-10, 120, (200, len(FEATURES)))

Document = dict[str, Any]


def tree(**changes: object) -> Document:
    """A split on load, and one on either side."""
    lower = {"feature": 4, "threshold": 20, "left": 0.1, "right": 0.3}
    upper = {"feature": 1, "threshold": 30, "left": 0.5, "right": 0.9}
    return {"feature": 1, "threshold": 10, "left": lower, "right": upper} | changes


def chain(leaves: int) -> Document | float:
    """A tree that is as deep as it has splits."""
    node: Document | float = 0.1
    for threshold in range(leaves - 1):
        node = {"feature": 2, "threshold": threshold, "left": 0.1, "right": node}
    return node


def loaded(*trees: object) -> Trees:
    """Trees as they are read from a file, checked."""
    try:
        decoded = msgspec.json.decode(msgspec.json.encode(trees), type=Trees)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ModelFileError(str(error)) from error
    check_trees(decoded)
    return decoded


def test_the_trees_read_from_lightgbm_predict_what_it_does(grown: lightgbm.Booster) -> None:
    trees = trees_of(grown)
    assert len(trees) == 3
    np.testing.assert_allclose(Forest(trees).sums(ROWS), grown.predict(ROWS), rtol=0, atol=1e-12)


def test_a_file_holds_trees_to_the_last_bit(grown: lightgbm.Booster) -> None:
    trees = trees_of(grown)
    assert msgspec.json.decode(msgspec.json.encode(trees), type=Trees) == trees


def test_the_largest_model_is_accepted() -> None:
    assert len(loaded(*[chain(MAX_LEAVES)] * MAX_TREES)) == MAX_TREES


@pytest.mark.parametrize(
    "trees",
    [
        [],
        [tree()] * (MAX_TREES + 1),
        [chain(MAX_LEAVES + 1)],
        [tree(feature=-1)],
        [tree(feature=len(FEATURES))],
        [tree(feature=0.5)],
        [tree(threshold=None)],
        [tree(threshold="1")],
        [tree(left=MAX_REACH + 1)],
        [tree(left=MAX_REACH / 2)] * 3,
        [tree(right={})],
        [None],
        ["tree"],
        [[tree()]],
    ],
)
def test_trees_that_no_model_has_are_refused(trees: list[object]) -> None:
    with pytest.raises(ModelFileError):
        loaded(*trees)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e400", "-1e400"])
def test_a_number_that_is_not_finite_is_refused(text: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        msgspec.json.decode(f"[{text}]", type=Trees)


def test_a_tree_that_is_far_too_deep_is_refused_and_not_recursed_into() -> None:
    deep = b'[{"feature":0,"threshold":0,"left":0,"right":' * 1
    text = b"[" + deep[1:] + b'{"feature":0,"threshold":0,"left":0,"right":' * 900 + b"0" + b"}" * 901 + b"]"
    with pytest.raises((ModelFileError, RecursionError)):
        check_trees(msgspec.json.decode(text, type=Trees))


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.none() | st.text(max_size=3)
documents = st.recursive(
    numbers,
    lambda nodes: st.fixed_dictionaries(
        {"feature": numbers, "threshold": numbers, "left": nodes, "right": nodes}
    ),
    max_leaves=12,
)


@given(st.lists(documents, max_size=3))
def test_any_trees_are_refused_or_give_finite_answers(trees: list[object]) -> None:
    try:
        checked = loaded(*trees)
    except ModelFileError:
        return
    found = Forest(checked).sums(ROWS)
    assert (np.abs(found) <= MAX_REACH + 1e-9).all()
