import re
from copy import deepcopy
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from extproc.errors import ModelFileError
from extproc.learning.features import FEATURES, MONOTONE
from extproc.learning.trees import MAX_LEAVES, MAX_TREES, Split, Tree, Trees, booster_of, render, trees_of

ROWS = np.random.default_rng(3).uniform(-10, 120, (200, len(FEATURES)))
FREE = [index for index, direction in enumerate(MONOTONE) if direction == 0]

Document = dict[str, Any]


def tree(**changes: object) -> Document:
    """A split on load, and one on either side."""
    lower = {"feature": 4, "threshold": 20, "left": 0.1, "right": 0.3}
    upper = {"feature": 1, "threshold": 30, "left": 0.5, "right": 0.9}
    return {"feature": 1, "threshold": 10, "left": lower, "right": upper} | changes


def chain(leaves: int, feature: int = 2) -> Document | float:
    """A tree that is as deep as it has splits."""
    node: Document | float = 0.1
    for threshold in range(leaves - 1):
        node = {"feature": feature, "threshold": threshold, "left": 0.1, "right": node}
    return node


def decoded(text: bytes) -> Trees:
    """Trees as they are read from a file."""
    try:
        return msgspec.json.decode(text, type=Trees)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ModelFileError(str(error)) from error


def loaded(*trees: object) -> lightgbm.Booster:
    return booster_of(decoded(msgspec.json.encode(trees)))


def asked(tree: Tree, row: np.ndarray) -> float:
    """What a tree says of a row."""
    while isinstance(tree, Split):
        tree = tree.left if row[tree.feature] <= tree.threshold else tree.right
    return tree


def n_leaves(tree: Tree) -> int:
    return n_leaves(tree.left) + n_leaves(tree.right) if isinstance(tree, Split) else 1


def test_the_trees_read_from_lightgbm_predict_what_it_does(grown: lightgbm.Booster) -> None:
    trees = trees_of(grown)
    assert len(trees) == 3
    np.testing.assert_array_equal(booster_of(trees).predict(ROWS), grown.predict(ROWS))


def test_a_file_holds_trees_to_the_last_bit(grown: lightgbm.Booster) -> None:
    trees = trees_of(grown)
    assert decoded(msgspec.json.encode(trees)) == trees


leaves = st.floats(-0.2, 0.2)
splits = st.builds(Split, st.sampled_from(FREE), st.floats(-10, 120), st.deferred(lambda: nodes), leaves)
nodes: st.SearchStrategy[Tree] = (
    leaves
    | splits
    | st.builds(
        Split,
        st.sampled_from(FREE),
        st.floats(-10, 120),
        st.deferred(lambda: nodes),
        st.deferred(lambda: nodes),
    )
)


@given(st.lists(nodes, min_size=1, max_size=5))
def test_lightgbm_reads_from_the_text_what_the_trees_say(trees: list[Tree]) -> None:
    assume(all(n_leaves(tree) <= MAX_LEAVES for tree in trees))
    expected = [sum(asked(tree, row) for tree in trees) for row in ROWS[:40]]
    assert booster_of(tuple(trees)).predict(ROWS[:40], num_threads=1) == pytest.approx(expected, abs=1e-12)


def test_a_tree_of_one_leaf_predicts_it_everywhere() -> None:
    assert loaded(0.7).predict(ROWS) == pytest.approx(np.full(len(ROWS), 0.7))


def test_the_largest_tree_that_is_allowed_can_be_as_deep_as_it_is_large() -> None:
    assert np.isfinite(loaded(chain(MAX_LEAVES)).predict(ROWS)).all()


def test_numbers_survive_to_the_last_bit() -> None:
    leaves = (0.1 + 0.2, -1e-300, 5e-324, 1 / 3)
    lower = {"feature": 3, "threshold": 20, "left": leaves[0], "right": leaves[1]}
    upper = {"feature": 2, "threshold": 30, "left": leaves[2], "right": leaves[3]}
    booster = loaded(tree(feature=2, left=lower, right=upper))
    predictions = booster.predict(np.array([[0, 0, x, y, 0] for x in (5, 20, 50) for y in (0, 99)]))
    assert set(predictions) == set(leaves)


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (tree(feature=5), "feature"),
        (tree(feature=-1), "feature"),
        (tree(feature=1.5), "feature"),
        (tree(feature="load"), "feature"),
        (tree(feature=2**70), "feature"),
        (tree(threshold=None), "threshold"),
        (tree(threshold="10"), "threshold"),
        (tree(threshold=1e301), "threshold"),
        (tree(left=None), "left"),
        (tree(left=True), "left"),
        (tree(left="0.1"), "left"),
        (tree(left=-50.1), "left"),
        (tree(right=[0.1, 0.2]), "right"),
        (tree(right={"leaf_value": 0.9}), "right"),
        ({"feature": 1, "threshold": 10, "left": 0.1}, "right"),
        ({"left_child": [1], "right_child": [0], "leaf_value": [0.1]}, "feature"),
        ("tree\nversion=v4", "str"),
        (tree(left=tree()["right"], right=tree()["left"]), "monotone"),
        (tree(feature=2, left=tree(left=0.9)), "monotone"),
        (chain(MAX_LEAVES + 1), f"{MAX_LEAVES + 1} leaves"),
        (chain(100), "100 leaves"),
        (50.0, "could reach"),
    ],
)
def test_a_tree_that_is_none_is_refused(bad: object, complaint: str) -> None:
    loaded(tree())
    with pytest.raises(ModelFileError, match=complaint):
        loaded(tree(), bad)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999", b"-1e999", b"9" * 5000])
@pytest.mark.parametrize("name", [b'"threshold":10', b'"left":0.1'])
def test_what_is_not_finite_is_refused(name: bytes, number: bytes) -> None:
    text = msgspec.json.encode([tree()])
    assert decoded(text)
    with pytest.raises(ModelFileError):
        decoded(text.replace(name, name.partition(b":")[0] + b":" + number))


@pytest.mark.parametrize("depth", [500, 100_000])
def test_a_tree_of_absurd_depth_is_refused(depth: int) -> None:
    text = b'{"feature":2,"threshold":1,"right":0,"left":' * depth + b"0" + b"}" * depth
    with pytest.raises(ModelFileError, match=f"{depth + 1} leaves|recursion"):
        booster_of(decoded(b"[" + text + b"]"))


@pytest.mark.parametrize("count", [0, MAX_TREES + 1])
def test_no_trees_and_too_many_are_refused(count: int) -> None:
    with pytest.raises(ModelFileError, match="length"):
        loaded(*[0.1] * count)


def test_small_trees_that_add_up_to_an_absurd_prediction_are_refused() -> None:
    with pytest.raises(ModelFileError, match="could reach"):
        loaded(*[tree()] * 100)


def test_in_the_text_every_node_but_the_root_is_the_child_of_one_split_before_it() -> None:
    text = render(decoded(msgspec.json.encode([tree(), chain(MAX_LEAVES), 0.5])))
    for leaves, left, right in re.findall(
        r"num_leaves=(\d+)\n(?:.*\n)*?left_child=(.*)\nright_child=(.*)\n", text
    ):
        n_splits = int(leaves) - 1
        children = [
            (parent, int(child)) for side in (left, right) for parent, child in enumerate(side.split())
        ]
        below_root = [*range(-n_splits - 1, 0), *range(1, n_splits)] if n_splits else []
        assert sorted(child for _, child in children) == below_root
        assert all(child > parent or child < 0 for parent, child in children)
    assert re.findall(r"num_leaves=(.*)", text) == ["4", str(MAX_LEAVES), "1"]


VALUES = st.sampled_from(
    [
        None,
        True,
        "",
        "x",
        [],
        {},
        0,
        -1,
        1,
        2,
        5,
        99999,
        2**31,
        -(2**31),
        2**64,
        1e300,
        -1e308,
        0.5,
        chain(40),
    ]
)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_edited_trees_are_refused_or_predict_finite_numbers(
    grown: lightgbm.Booster, data: st.DataObject
) -> None:
    trees = msgspec.to_builtins(trees_of(grown))
    values = VALUES | st.sampled_from(deepcopy(trees))
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from([tree for tree in trees if isinstance(tree, dict)] or [{}]))
        while isinstance(node.get(side := data.draw(st.sampled_from(["left", "right"]))), dict):
            if data.draw(st.booleans()):
                break
            node = node[side]
        key = data.draw(st.sampled_from(["feature", "threshold", "left", "right", "other"]))
        node[key] = deepcopy(data.draw(values))
    try:
        booster = loaded(*trees)
    except ModelFileError:
        return
    assert np.isfinite(booster.predict(ROWS, num_threads=1)).all()
