"""The rules of layer 2's model: when it is asked and has a say, and when another one replaces it."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from extproc.fleet.bounds import Share
from extproc.fleet.prediction_record import TrustRule


@dataclass(frozen=True, slots=True)
class PredictRule(TrustRule):
    """When the model is asked and has a say."""

    is_enabled: bool = True
    max_candidates: Annotated[int, Ge(1), Le(256)] = 16  # design: asked about the 16 with the least estimates


@dataclass(frozen=True, slots=True)
class GateRule:
    """`margin` is the share by which a challenger has to be better than the incumbent and the estimate alone.

    A model whose typical prediction is further off than `max_median_error` (relative) is of no use.
    """

    margin: Share = 0.05  # guessed: less is noise between two held-out sets
    max_median_error: float = 0.5  # guessed


DEFAULT_GATE_RULE = GateRule()
