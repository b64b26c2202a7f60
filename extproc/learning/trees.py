"""The trees of a model: what a file may say of them, and the only way from there to LightGBM.

LightGBM reads its own text without checking it. Of 910 edits of one word or line each of a valid text, 514
ended the process: a segmentation fault, a division by zero, an abort inside a thread, or an endless walk
along a child that points at its own parent. Therefore a model file holds trees as JSON: decoding checks every
number by the types below, `booster_of` checks the rest, and LightGBM gets text that `render` has written.

A tree is nested: a leaf is a number, and a split holds a tree on either side. So there is no index of a node
that could be out of range, no cycle, and no node that is reached twice or never.

Guaranteed for decoded trees that `booster_of` accepts: bounded numbers of trees and leaves, splits on known
features, finite numbers, every prediction within ±MAX_LOG_TTFT, and a prediction that never falls when a
feature with a positive constraint grows. Not guaranteed: that the model is any good. The theory of the last
point: where every leaf left of a split is at most every leaf right of it, a tree is monotone in the split's
feature, and rounded addition keeps the order of sums.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import lightgbm
import msgspec
from msgspec import Meta

from extproc.errors import ModelFileError
from extproc.learning.features import FEATURES, MONOTONE

MAX_TREES = 200
MAX_LEAVES = 32
"""Twice what `boosting` grows, in both directions; more could not be asked within a decision's budget."""

MAX_LOG_TTFT = 50.0
"""No sum of leaves may leave ±50: e^50 s is absurd, but still far from overflow."""

_LARGEST_THRESHOLD = 1e300
"""LightGBM writes it for infinity."""

_SPLIT_COLUMNS = ("split_feature", "threshold", "decision_type", "left_child", "right_child")
_NUMERICAL = 2
"""LightGBM's `decision_type` of a numerical split without special treatment of missing values."""

Leaf = Annotated[float, Meta(ge=-MAX_LOG_TTFT, le=MAX_LOG_TTFT)]
"""Log seconds; JSON has no way to write what is not finite."""


@dataclass(frozen=True, slots=True)
class Split:
    """Rows go left where their `feature`, an index of FEATURES, is at most the `threshold`, or else right."""

    feature: Annotated[int, Meta(ge=0, lt=len(FEATURES))]
    threshold: Annotated[float, Meta(ge=-_LARGEST_THRESHOLD, le=_LARGEST_THRESHOLD)]
    left: "Tree"
    right: "Tree"


Tree = Leaf | Split
Trees = Annotated[tuple[Tree, ...], Meta(min_length=1, max_length=MAX_TREES)]
"""A prediction is the sum over all trees."""


def trees_of(booster: lightgbm.Booster) -> Trees:
    """Read the trees that LightGBM has grown, from its documented JSON, with the checks of a model file."""
    grown = [_grown(info["tree_structure"]) for info in booster.dump_model()["tree_info"]]
    return msgspec.convert(grown, Trees)


def booster_of(trees: Trees) -> lightgbm.Booster:
    """Load trees that need not be trusted into LightGBM; raises ModelFileError."""
    _check(trees)
    try:
        return lightgbm.Booster(model_str=render(trees))
    except lightgbm.basic.LightGBMError as error:
        raise ModelFileError(f"LightGBM does not load the trees: {error}") from error


def render(trees: Trees) -> str:
    """Write the least text from which LightGBM makes the same predictions."""
    head = [
        "tree",
        "version=v4",
        "num_class=1",
        "num_tree_per_iteration=1",
        "label_index=0",
        f"max_feature_idx={len(FEATURES) - 1}",
        "objective=regression",
        f"feature_names={' '.join(FEATURES)}",
        f"feature_infos={' '.join(['none'] * len(FEATURES))}",
    ]
    blocks = [_render_tree(number, tree) for number, tree in enumerate(trees)]
    return "\n\n".join(["\n".join(head), *blocks, "end of trees\n"])


def _render_tree(number: int, tree: Tree) -> str:
    columns: dict[str, list[float]] = {name: [] for name in (*_SPLIT_COLUMNS, "leaf_value")}
    _flatten(tree, columns)
    return "\n".join(
        [
            f"Tree={number}",
            f"num_leaves={len(columns['leaf_value'])}",
            "num_cat=0",
            *(f"{name}={' '.join(map(repr, values))}" for name, values in columns.items()),
            "is_linear=0",
            "shrinkage=1",
        ]
    )


def _flatten(tree: Tree, columns: dict[str, list[float]]) -> int:
    """Append a tree, parents first, and return its root. Splits count from 0 up, leaves from -1 down."""
    if not isinstance(tree, Split):
        columns["leaf_value"].append(tree)
        return -len(columns["leaf_value"])
    number = len(columns["threshold"])
    row = (tree.feature, tree.threshold, _NUMERICAL, 0, 0)
    for name, value in zip(_SPLIT_COLUMNS, row, strict=True):
        columns[name].append(value)
    columns["left_child"][number] = _flatten(tree.left, columns)
    columns["right_child"][number] = _flatten(tree.right, columns)
    return number


def _grown(node: dict[str, Any]) -> object:
    """Return a node of LightGBM's JSON, and all below it, as a model file has them."""
    if "leaf_value" in node:
        return node["leaf_value"]
    return {
        "feature": node["split_feature"],
        "threshold": node["threshold"],
        "left": _grown(node["left_child"]),
        "right": _grown(node["right_child"]),
    }


def _check(trees: Trees) -> None:
    reach = 0.0
    for number, tree in enumerate(trees):
        if (leaves := _count_leaves(tree)) > MAX_LEAVES:
            raise ModelFileError(f"tree {number} has {leaves} leaves; at most {MAX_LEAVES} are allowed")
        reach += max(map(abs, _range(tree)))
    if reach > MAX_LOG_TTFT:
        raise ModelFileError(f"predictions could reach ±{reach:g} log seconds; ±{MAX_LOG_TTFT:g} is allowed")


def _count_leaves(tree: Tree) -> int:
    """Count the leaves, without recursion: a tree from a file may be too deep for it."""
    pending, n_splits = [tree], 0
    while pending:
        if isinstance(node := pending.pop(), Split):
            n_splits += 1
            pending += node.left, node.right
    return n_splits + 1


def _range(tree: Tree) -> tuple[float, float]:
    """Return the smallest and the largest leaf; raises ModelFileError where they break monotonicity."""
    if not isinstance(tree, Split):
        return tree, tree
    left, right = _range(tree.left), _range(tree.right)
    direction = MONOTONE[tree.feature]
    lower, upper = (left, right) if direction > 0 else (right, left)
    if direction != 0 and lower[1] > upper[0]:
        raise ModelFileError(f"a split on {FEATURES[tree.feature]} breaks a monotone constraint")
    return min(left[0], right[0]), max(left[1], right[1])
