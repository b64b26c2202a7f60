"""The trees of a model: what a file may say of them, and how LightGBM's become such.

A model file holds trees as JSON: decoding checks every number by the types below, and `check_trees` the rest.
A tree is nested: a leaf is a number, and a split holds a tree on either side. So there is no index of a node
that could be out of range, no cycle, and no node that is reached twice or never. LightGBM only grows them; a
sidecar asks them without it (`learning.forest`).

Guaranteed for trees that `check_trees` accepts: bounded numbers of trees and leaves, splits on known
features, finite numbers, and every prediction within ±MAX_REACH. Not guaranteed: that the model is any good.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from extproc.errors import ModelFileError
from extproc.learning.features import FEATURES

if TYPE_CHECKING:
    import lightgbm

MAX_TREES = 20
MAX_SPLITS = 8
MAX_LEAVES = MAX_SPLITS + 1
"""Guessed: what a decision has time for, see `learning.forest`. The splits of a tree fit into a byte."""

MAX_REACH = 10.0
"""No sum of leaves may leave ±10: a factor of 22,000 is absurd, but still far from overflow."""

_LARGEST_THRESHOLD = 1e300
"""LightGBM writes it for infinity."""

Leaf = Annotated[float, Meta(ge=-MAX_REACH, le=MAX_REACH)]
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


def trees_of(booster: "lightgbm.Booster") -> Trees:
    """Read the trees that LightGBM has grown, from its documented JSON, with the checks of a model file."""
    grown = [_grown(info["tree_structure"]) for info in booster.dump_model()["tree_info"]]
    return msgspec.convert(grown, Trees)


def check_trees(trees: Trees) -> None:
    """Raise ModelFileError where a tree is too large, or predictions could reach too far."""
    reach = 0.0
    for number, tree in enumerate(trees):
        leaves = _leaves(tree)
        if len(leaves) > MAX_LEAVES:
            raise ModelFileError(f"tree {number} has {len(leaves)} leaves; at most {MAX_LEAVES} are allowed")
        reach += max(map(abs, leaves))
    if reach > MAX_REACH:
        raise ModelFileError(f"predictions could reach ±{reach:g} log seconds; ±{MAX_REACH:g} is allowed")


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


def _leaves(tree: Tree) -> list[float]:
    """Return the leaves, found without recursion: a tree from a file may be too deep for it."""
    pending, leaves = [tree], []
    while pending:
        node = pending.pop()
        if isinstance(node, Split):
            pending += node.left, node.right
        else:
            leaves.append(node)
    return leaves
