"""The model in use: one reference, replaced whole, that keeps the last good model.

The adapter that watches the model file reads an offer from its content, which takes time and changes nothing;
the predictive layer reads `current` once per decision. It fails closed towards new models: a file that cannot
be used is refused, and the old model stays.
"""

import hashlib
from dataclasses import dataclass

from extproc.errors import ModelFileError
from extproc.learning.model_file import load
from extproc.learning.predictor import Predictor

_MAX_REASON_CHARS = 500


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """A model file that was read: a `predictor`, or why it is `refused`."""

    digest: bytes
    predictor: Predictor | None = None
    refused: str = ""


def read_offer(data: bytes) -> ModelOffer:
    """Read the content of a model file; never raises, whatever the bytes."""
    digest = hashlib.sha256(data).digest()
    try:
        return ModelOffer(digest, load(data))
    except ModelFileError as error:
        return ModelOffer(digest, refused=str(error)[:_MAX_REASON_CHARS])


class ModelInUse:
    """Holds the model in use, and counts the offers.

    `last_refusal` says what is wrong with the last offer; None where that one is in use.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.last_refusal: str | None = None
        self.current: Predictor | None = None
        self._last_offer = b""

    def take(self, offer: ModelOffer) -> bool:
        """Use the offered model from now on, if it can be used; True if it is in use since this call.

        An offer equal to the last one changes and counts nothing, so a watch may fire as it likes.
        """
        if offer.digest == self._last_offer:
            return False
        self._last_offer = offer.digest
        if offer.predictor is None:
            self.refused += 1
            self.last_refusal = offer.refused
            return False
        self.current = offer.predictor
        self.accepted += 1
        self.last_refusal = None
        return True
