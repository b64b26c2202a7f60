"""LightGBM's model text, taken apart, checked and written anew, so that a file cannot reach its C++ parser.

LightGBM reads text without checking it. Of 910 edits of one word or line each of a valid text, 514 ended the
process: a segmentation fault, a division by zero, an abort inside a thread, or an endless walk along a child
that points at its own parent. Therefore no foreign text is ever handed over. `parse_trees` reads the few
numbers that a prediction depends on, each tree is checked to be a tree, and `render` writes the text that
LightGBM gets. The same form is stored in the model file.

Guaranteed for what `parse_trees` returns: bounded numbers of trees and leaves, every index in range, no
cycle, every node reached exactly once, all numbers finite, every prediction within ±MAX_LOG_TTFT, and a
prediction that never falls when a feature with a positive constraint grows. Not guaranteed: that the model
is any good. The theory of the last point: where every leaf left of a split is at most every leaf right of
it, a tree is monotone in the split's feature, and rounded addition keeps the order of sums.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from extproc.errors import ModelFileError

MAX_TREES = 200
MAX_LEAVES = 32
"""Twice what `boosting` grows, in both directions; more could not be asked within a decision's budget."""

_MAX_BLOCK_CHARS = 50_000
"""The head of a text, or one tree: four times what LightGBM writes for `MAX_LEAVES`."""

MAX_LOG_TTFT = 50.0
"""No sum of leaves may leave ±50: e^50 s is absurd, but still far from overflow."""

_NUMERICAL_SPLITS = {0, 2}
"""`decision_type` of a numerical split without special missing values; bit 1 is their unused default side."""

_HEADER = {"version": "v4", "num_class": "1", "num_tree_per_iteration": "1"}
_OBJECTIVES = {"regression", "huber"}
"""Objectives whose output is the plain sum of the leaves."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree; a child >= 0 is the index of a split, a child < 0 is leaf number `-child - 1`."""

    split_feature: tuple[int, ...]
    threshold: tuple[float, ...]
    left_child: tuple[int, ...]
    right_child: tuple[int, ...]
    leaf_value: tuple[float, ...]


def parse_trees(text: str, features: Sequence[str], monotone: Sequence[int]) -> tuple[Tree, ...]:
    """The trees in a LightGBM model text; raises ModelFileError where they are not a model of `features`."""
    head, blocks = _split(text)
    if _is_average(head):
        raise ModelFileError("the model is an average of trees; a sum is served")
    _check_header(head, features)
    trees = _parse_blocks(blocks, features, monotone)
    _check_reach(trees)
    return trees


def parse_forest(text: str, features: Sequence[str], monotone: Sequence[int]) -> tuple[Tree, ...]:
    """The trees in the text of LightGBM's random forest, with leaves such that their sum is its average.

    The same is guaranteed of them as of `parse_trees`: rounded division keeps the order of leaves.
    """
    head, blocks = _split(text)
    if not _is_average(head):
        raise ModelFileError("the model is a sum of trees; an average was expected")
    _check_header(head, features)
    trees = tuple(
        replace(tree, leaf_value=tuple(value / len(blocks) for value in tree.leaf_value))
        for tree in _parse_blocks(blocks, features, monotone)
    )
    _check_reach(trees)
    return trees


def _is_average(head: str) -> bool:
    return "average_output" in head.splitlines()


def _parse_blocks(
    blocks: Sequence[str], features: Sequence[str], monotone: Sequence[int]
) -> tuple[Tree, ...]:
    trees = []
    for number, block in enumerate(blocks):
        try:
            tree = _parse_tree(_fields(block))
            _check_tree(tree, len(features))
            _check_monotone(tree, monotone)
        except ModelFileError as error:
            raise ModelFileError(f"tree {number}: {error}") from error
        trees.append(tree)
    return tuple(trees)


def _check_reach(trees: Sequence[Tree]) -> None:
    reach = math.fsum(max(map(abs, tree.leaf_value)) for tree in trees)
    if reach > MAX_LOG_TTFT:
        raise ModelFileError(f"predictions could reach ±{reach:g} log seconds; ±{MAX_LOG_TTFT:g} is allowed")


def render(trees: Sequence[Tree], features: Sequence[str]) -> str:
    """The least text from which LightGBM makes the same predictions."""
    head = [
        "tree",
        *(f"{key}={value}" for key, value in _HEADER.items()),
        "label_index=0",
        f"max_feature_idx={len(features) - 1}",
        "objective=regression",
        f"feature_names={' '.join(features)}",
        f"feature_infos={' '.join(['none'] * len(features))}",
    ]
    blocks = [_render_tree(number, tree) for number, tree in enumerate(trees)]
    return "\n\n".join(["\n".join(head), *blocks, "end of trees\n"])


def _render_tree(number: int, tree: Tree) -> str:
    return "\n".join(
        [
            f"Tree={number}",
            f"num_leaves={len(tree.leaf_value)}",
            "num_cat=0",
            f"split_feature={' '.join(map(str, tree.split_feature))}",
            f"threshold={' '.join(map(repr, tree.threshold))}",
            f"decision_type={' '.join(['2'] * len(tree.split_feature))}",
            f"left_child={' '.join(map(str, tree.left_child))}",
            f"right_child={' '.join(map(str, tree.right_child))}",
            f"leaf_value={' '.join(map(repr, tree.leaf_value))}",
            "is_linear=0",
            "shrinkage=1",
        ]
    )


def _split(text: str) -> tuple[str, list[str]]:
    """The head of a model text and the block of each tree, of bounded number and size."""
    body, end, _ = text.partition("\nend of trees")
    head, *blocks = body.split("\nTree=")
    if not end or not head.startswith("tree\n"):
        raise ModelFileError("the model text is not a whole one of LightGBM's")
    if not 1 <= len(blocks) <= MAX_TREES:
        raise ModelFileError(f"the model has {len(blocks)} trees; 1 to {MAX_TREES} are allowed")
    if max(map(len, (head, *blocks))) > _MAX_BLOCK_CHARS:
        raise ModelFileError(f"the head or a tree has more than {_MAX_BLOCK_CHARS} characters")
    return head, blocks


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _check_header(head: str, features: Sequence[str]) -> None:
    fields = _fields(head)
    for key, value in _HEADER.items():
        if fields.get(key) != value:
            raise ModelFileError(f"the model text has {key}={fields.get(key)!r:.50}; {value} is needed")
    if fields.get("objective") not in _OBJECTIVES:
        raise ModelFileError(f"the model text has the objective {fields.get('objective')!r:.50}")
    if fields.get("feature_names", "").split(" ") != list(features):
        raise ModelFileError(f"the model text is about the features {fields.get('feature_names')!r:.200}")


def _parse_tree(fields: Mapping[str, str]) -> Tree:
    if fields.get("num_cat") != "0" or fields.get("is_linear") != "0":
        raise ModelFileError("categorical splits and linear leaves are not allowed")
    try:
        splits = {int(kind) for kind in fields["decision_type"].split()}
        tree = Tree(
            split_feature=tuple(map(int, fields["split_feature"].split())),
            threshold=tuple(map(float, fields["threshold"].split())),
            left_child=tuple(map(int, fields["left_child"].split())),
            right_child=tuple(map(int, fields["right_child"].split())),
            leaf_value=tuple(map(float, fields["leaf_value"].split())),
        )
    except (KeyError, ValueError) as error:
        raise ModelFileError(f"a field is missing or not a number: {error!r:.200}") from error
    if not splits <= _NUMERICAL_SPLITS:
        raise ModelFileError("a split treats missing values in a way that is not allowed")
    return tree


def _check_tree(tree: Tree, n_features: int) -> None:
    n_leaves = len(tree.leaf_value)
    if not 1 <= n_leaves <= MAX_LEAVES:
        raise ModelFileError(f"{n_leaves} leaves; 1 to {MAX_LEAVES} are allowed")
    n_splits = n_leaves - 1
    for name in ("split_feature", "threshold", "left_child", "right_child"):
        if len(getattr(tree, name)) != n_splits:
            raise ModelFileError(f"{len(getattr(tree, name))} values of {name} for {n_leaves} leaves")
    if not all(map(math.isfinite, tree.threshold + tree.leaf_value)):
        raise ModelFileError("a threshold or leaf is not finite")
    if not all(0 <= feature < n_features for feature in tree.split_feature):
        raise ModelFileError("a split is on a feature that does not exist")
    # LightGBM numbers splits as it makes them, so a split comes after its parent: that rules out cycles.
    for children in (tree.left_child, tree.right_child):
        if any(0 <= child <= parent for parent, child in enumerate(children)):
            raise ModelFileError("a child comes before its parent")
    below_root = [*range(-n_leaves, 0), *range(1, n_splits)] if n_splits else []
    if sorted(tree.left_child + tree.right_child) != below_root:
        raise ModelFileError("a node has no parent, several, or does not exist")


def _check_monotone(tree: Tree, monotone: Sequence[int]) -> None:
    """Raise ModelFileError where a split on a constrained feature has a lower leaf on its upper side."""
    ranges: dict[int, tuple[float, float]] = {-leaf - 1: (v, v) for leaf, v in enumerate(tree.leaf_value)}
    for split in reversed(range(len(tree.split_feature))):
        left, right = ranges[tree.left_child[split]], ranges[tree.right_child[split]]
        direction = monotone[tree.split_feature[split]]
        lower, upper = (left, right) if direction > 0 else (right, left)
        if direction != 0 and lower[1] > upper[0]:
            raise ModelFileError("a split breaks a monotone constraint")
        ranges[split] = (min(left[0], right[0]), max(left[1], right[1]))
