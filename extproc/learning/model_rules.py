"""The rules of layer 2's model: when it is asked and believed, and when another one replaces it."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from extproc.fleet.bounds import Share
from extproc.fleet.prediction_record import TrustRule


@dataclass(frozen=True, slots=True)
class PredictRule(TrustRule):
    """When the model is asked and believed; predictions within `tie_fraction` of the smallest are a tie."""

    is_enabled: bool = True
    tie_fraction: Share = 0.05  # design: within 5 % is a tie
    max_candidates: Annotated[int, Ge(1), Le(256)] = 16  # design: asked about the 16 least loaded only


@dataclass(frozen=True, slots=True)
class GateRule:
    """`margin` is the share of the incumbent's error by which the challenger has to be better.

    A model whose typical prediction is further off than `max_median_error` (relative) is of no use. Backends
    whose TTFTs lie within `tie_fraction` are equally fast.
    """

    margin: Share = 0.05  # guessed: less is noise between two held-out sets
    max_median_error: float = 0.5  # guessed
    tie_fraction: float = PredictRule().tie_fraction


DEFAULT_GATE_RULE = GateRule()
