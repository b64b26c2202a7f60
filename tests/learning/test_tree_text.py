import re

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.errors import ModelFileError
from extproc.learning.features import FEATURES, MONOTONE
from extproc.learning.model_file import booster_of
from extproc.learning.tree_text import MAX_LEAVES, MAX_TREES, Tree, parse_forest, parse_trees, render

ROWS = np.random.default_rng(3).uniform(-10, 120, (200, len(FEATURES)))

LINE = """num_leaves=4
num_cat=0
split_feature=1 4 1
threshold=10 20 30
decision_type=2 2 2
left_child=1 -1 -2
right_child=2 -3 -4
leaf_value=0.1 0.5 0.3 0.9
is_linear=0
"""


def tree(**changes: str) -> str:
    lines = dict(line.split("=") for line in LINE.splitlines()) | changes
    return "\n".join(f"{key}={value}" for key, value in lines.items())


def text(*trees: str, **header: str) -> str:
    fields = {
        "version": "v4",
        "num_class": "1",
        "num_tree_per_iteration": "1",
        "objective": "regression",
        "feature_names": " ".join(FEATURES),
    } | header
    head = "tree\n" + "\n".join(f"{key}={value}" for key, value in fields.items())
    blocks = [f"Tree={number}\n{body}" for number, body in enumerate(trees)]
    return "\n\n".join([head, *blocks, "end of trees"])


def parsed(model: str) -> tuple[Tree, ...]:
    return parse_trees(model, FEATURES, MONOTONE)


def test_the_rewritten_text_predicts_what_lightgbm_s_own_does(lightgbm_text: str) -> None:
    original = lightgbm.Booster(model_str=lightgbm_text)
    rewritten = lightgbm.Booster(model_str=render(parsed(lightgbm_text), FEATURES))
    np.testing.assert_array_equal(rewritten.predict(ROWS), original.predict(ROWS))


def test_a_forest_served_as_a_sum_predicts_the_average_that_lightgbm_predicts(forest_text: str) -> None:
    average = lightgbm.Booster(model_str=forest_text)
    trees = parse_forest(forest_text, FEATURES, MONOTONE)
    summed = lightgbm.Booster(model_str=render(trees, FEATURES))
    assert np.ptp(average.predict(ROWS)) > 0.5
    np.testing.assert_allclose(summed.predict(ROWS), average.predict(ROWS), rtol=1e-12)
    assert parsed(render(trees, FEATURES)) == trees, "serving accepts what was written"


def test_a_sum_is_not_taken_for_an_average_nor_the_other_way_round(
    forest_text: str, lightgbm_text: str
) -> None:
    with pytest.raises(ModelFileError, match="an average was expected"):
        parse_forest(lightgbm_text, FEATURES, MONOTONE)
    with pytest.raises(ModelFileError, match="a sum is served"):
        parsed(forest_text)


def test_a_forest_is_checked_as_a_sum_is(forest_text: str) -> None:
    swapped = tuple(-direction for direction in MONOTONE)
    with pytest.raises(ModelFileError, match="breaks a monotone constraint"):
        parse_forest(forest_text, FEATURES, swapped)


def test_the_rewritten_text_says_the_same_when_read_again(lightgbm_text: str) -> None:
    trees = parsed(lightgbm_text)
    assert parsed(render(trees, FEATURES)) == trees


def test_a_tree_of_one_leaf_predicts_it_everywhere() -> None:
    single = tree(
        num_leaves="1",
        split_feature="",
        threshold="",
        decision_type="",
        left_child="",
        right_child="",
        leaf_value="0.7",
    )
    assert booster_of(text(single)).predict(ROWS) == pytest.approx(np.full(len(ROWS), 0.7))


def test_numbers_survive_to_the_last_bit() -> None:
    leaves = (0.1 + 0.2, -1e-300, 5e-324, 1 / 3)
    model = text(tree(split_feature="2 3 2", leaf_value=" ".join(map(repr, leaves))))
    assert parsed(render(parsed(model), FEATURES))[0].leaf_value == leaves
    predictions = booster_of(model).predict(np.array([[0, 0, x, y, 0] for x in (5, 20, 50) for y in (0, 99)]))
    assert set(predictions) <= set(leaves)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"left_child": "0 -1 -2"}, "before its parent"),
        ({"left_child": "1 0 -2"}, "before its parent"),
        ({"right_child": "1 -3 -4"}, "no parent, several"),
        ({"right_child": "2 -3 -9"}, "no parent, several"),
        ({"right_child": "7 -3 -4"}, "no parent, several"),
        ({"left_child": "1 -1 -2147483648"}, "no parent, several"),
        ({"left_child": "1 -1"}, "2 values of left_child"),
        ({"split_feature": "1 4 5"}, "does not exist"),
        ({"split_feature": "1 -4 1"}, "does not exist"),
        ({"threshold": "10 nan 30"}, "not finite"),
        ({"leaf_value": "0.1 0.5 0.3 inf"}, "not finite"),
        ({"leaf_value": "0.1 0.5 0.3 1e999"}, "not finite"),
        ({"leaf_value": "0.1 0.5 0.3 60"}, "could reach"),
        ({"leaf_value": ""}, "0 leaves"),
        ({"leaf_value": " ".join(["1"] * (MAX_LEAVES + 1))}, f"{MAX_LEAVES + 1} leaves"),
        ({"leaf_value": "0.9 0.5 0.3 0.1"}, "monotone"),
        ({"threshold": "ten 20 30"}, "not a number"),
        ({"decision_type": "1 2 2"}, "missing values"),
        ({"decision_type": "2 10 2"}, "missing values"),
        ({"num_cat": "1"}, "categorical"),
        ({"is_linear": "1"}, "linear"),
        ({"left_child": "9" * 5000}, "not a number"),
    ],
)
def test_a_tree_that_is_none_is_refused(changes: dict[str, str], complaint: str) -> None:
    parsed(text(tree()))
    with pytest.raises(ModelFileError, match=complaint):
        parsed(text(tree(), tree(**changes)))


@pytest.mark.parametrize("field", ["threshold", "leaf_value", "split_feature", "left_child", "decision_type"])
def test_a_missing_field_is_refused(field: str) -> None:
    with pytest.raises(ModelFileError, match="missing"):
        parsed(text(re.sub(f"{field}=.*\n", "", tree())))


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ({"version": "v9"}, "version"),
        ({"num_class": "3"}, "num_class"),
        ({"num_tree_per_iteration": "0"}, "num_tree_per_iteration"),
        ({"objective": "poisson"}, "objective"),
        ({"objective": "regression sqrt"}, "objective"),
        ({"feature_names": "a b c d e"}, "features"),
    ],
)
def test_a_model_of_another_kind_is_refused(header: dict[str, str], complaint: str) -> None:
    with pytest.raises(ModelFileError, match=complaint):
        parsed(text(tree(), **header))


@pytest.mark.parametrize("model", ["", "tree", "forest\n\nend of trees", text(tree())[:-20]])
def test_a_text_that_is_no_whole_model_is_refused(model: str) -> None:
    with pytest.raises(ModelFileError):
        parsed(model)


def test_an_average_of_trees_is_refused() -> None:
    with pytest.raises(ModelFileError, match="average"):
        parsed(text(tree()).replace("num_class", "average_output\nnum_class"))


@pytest.mark.parametrize("field", ["threshold", "leaf_value"])
def test_a_tree_of_absurd_length_is_refused_before_it_is_read(field: str) -> None:
    with pytest.raises(ModelFileError, match="characters"):
        parsed(text(tree(**{field: "1 " * 100_000})))


@pytest.mark.parametrize("count", [0, MAX_TREES + 1])
def test_no_trees_and_too_many_are_refused(count: int) -> None:
    with pytest.raises(ModelFileError, match=f"{count} trees"):
        parsed(text(*[tree()] * count))


def test_small_trees_that_add_up_to_an_absurd_prediction_are_refused() -> None:
    with pytest.raises(ModelFileError, match="could reach"):
        parsed(text(*[tree(leaf_value="0.1 0.5 0.3 0.9")] * 100))


NUMBERS = st.sampled_from(
    [
        "",
        "0",
        "-1",
        "-2",
        "1",
        "2",
        "3",
        "99999",
        "2147483647",
        "-2147483648",
        "9" * 20,
        "nan",
        "inf",
        "1e400",
        "x",
    ]
)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_an_edited_text_is_refused_or_predicts_finite_numbers(
    lightgbm_text: str, data: st.DataObject
) -> None:
    lines = lightgbm_text.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, lines.index("end of trees")))
        key, _, value = lines[at].partition("=")
        words = value.split(" ")
        words[data.draw(st.integers(0, len(words) - 1))] = data.draw(NUMBERS)
        edited = f"{key}={' '.join(words)}"
        lines[at : at + 1] = data.draw(st.sampled_from([[edited], [], [lines[at]] * 2, [value]]))
        if "end of trees" not in lines:
            break
    try:
        booster = booster_of("\n".join(lines))
    except ModelFileError:
        return
    assert np.isfinite(booster.predict(ROWS, num_threads=1)).all()
