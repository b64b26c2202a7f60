"""Trees that are asked about a few rows at once, inside a decision.

Each tree has at most eight splits. All splits of all trees are compared at once; the eight answers of a tree
are the bits of a byte, and a table says which leaf every byte leads to. So the time hardly depends on the
trees' shapes, and no tree is walked. It is the thought of QuickScorer (Lucchese et al., "QuickScorer: a fast
algorithm to rank documents with additive ensembles of regression trees", SIGIR 2015), with a table in place
of its masks. Measured: 16 rows and 32 trees take 12 µs; LightGBM's own call takes 45 for trees of this size.
"""

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from extproc.learning.features import FEATURES
from extproc.learning.trees import MAX_SPLITS, Split, Tree, Trees

_BYTES = 1 << MAX_SPLITS
_BITS = (np.arange(_BYTES)[:, None] >> np.arange(MAX_SPLITS)[::-1] & 1).astype(bool)
"""The bits of each byte, in the order in which `numpy.packbits` packs them."""

_ROWS_AT_ONCE = 4096
"""Guessed: more are asked in parts, which bounds the memory."""


class _Repeated(NamedTuple):
    """The thresholds of all splits, and where the tables of all trees begin, once for each of some rows."""

    thresholds: npt.NDArray[np.float64]
    tables: npt.NDArray[np.intp]


class _FewRows(NamedTuple):
    """The parts of a call that depend on the number of its rows alone."""

    packer: Struct
    repeated: _Repeated


class Forest:
    """Trees as flat arrays; they have been checked by `check_trees`."""

    __slots__ = ("_features", "_few", "_table", "_thresholds", "_trees")

    def __init__(self, trees: Trees) -> None:
        self._trees = len(trees)
        self._features = np.zeros(self._trees * MAX_SPLITS, dtype=np.intp)
        self._thresholds = np.full(self._trees * MAX_SPLITS, np.inf)
        self._table = np.concatenate([self._flattened(tree, at) for at, tree in enumerate(trees)])
        self._few: dict[int, _FewRows] = {}

    def sums(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the sum of the leaves that each row reaches: `(n, n_features)` to `(n,)`; NaN counts as
        0."""
        if len(rows) > _ROWS_AT_ONCE:
            parts = np.split(rows, range(_ROWS_AT_ONCE, len(rows), _ROWS_AT_ONCE))
            return np.concatenate([self.sums(part) for part in parts])
        return self._asked(rows, self._repeated(len(rows)))

    def of_few(self, values: Sequence[float]) -> list[float]:
        """Return the same for rows that are given one after another, as a decision has them."""
        known = self._few.get(len(values))
        if known is None:
            repeated = self._repeated(len(values) // len(FEATURES))
            known = self._few[len(values)] = _FewRows(Struct(f"{len(values)}d"), repeated)
        rows = np.frombuffer(known.packer.pack(*values)).reshape(-1, len(FEATURES))
        found: list[float] = self._asked(rows, known.repeated).tolist()
        return found

    def _asked(self, rows: npt.NDArray[np.float64], repeated: "_Repeated") -> npt.NDArray[np.float64]:
        is_right = rows.take(self._features, axis=1).ravel() > repeated.thresholds
        leaves = self._table.take(np.packbits(is_right) + repeated.tables)
        sums: npt.NDArray[np.float64] = np.add.reduce(leaves.reshape(-1, self._trees), axis=1)
        return sums

    def _repeated(self, rows: int) -> "_Repeated":
        return _Repeated(np.tile(self._thresholds, rows), np.tile(np.arange(self._trees) * _BYTES, rows))

    def _flattened(self, tree: Tree, at: int) -> npt.NDArray[np.float64]:
        """Write the splits of a tree down, and return the leaf that each byte of answers leads to."""
        used = at * MAX_SPLITS

        def leaves(node: Tree) -> npt.NDArray[np.float64]:
            nonlocal used
            if not isinstance(node, Split):
                return np.full(_BYTES, node)
            number, used = used, used + 1
            self._features[number], self._thresholds[number] = node.feature, node.threshold
            bits = _BITS[:, number - at * MAX_SPLITS]
            return np.where(bits, leaves(node.right), leaves(node.left))

        return leaves(tree)
