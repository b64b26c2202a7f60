"""The place of the model in use: one reference, replaced whole, that keeps the last good model.

The adapter that watches the model file offers its content here; the predictive layer reads `current` once
per decision. It fails closed towards new models: whatever cannot be used is refused, and the old one stays.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from extproc.errors import ModelFileError
from extproc.learning.model_file import load
from extproc.learning.predictor import Predictor

_MAX_REASON_CHARS = 500


class Answer(StrEnum):
    """What became of an offer."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to an offer; `reason` is empty unless it was refused."""

    answer: Answer
    reason: str = ""


class ModelSlot:
    """Holds the model in use, and counts what was offered; `accepted_at_s` is when that model came.

    `last_refusal` says what is wrong with the last offer; None where that one is in use.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.last_refusal: str | None = None
        self.accepted_at_s: float | None = None
        self._current: Predictor | None = None
        self._last_offer = b""

    @property
    def current(self) -> Predictor | None:
        """The last good model, or None before the first one."""
        return self._current

    def offer(self, data: bytes, at_s: float) -> Verdict:
        """Use the model file with this content from now on, if it can be used.

        Content equal to that of the last offer changes and counts nothing, so a watch may fire as it likes.
        """
        digest = hashlib.sha256(data).digest()
        if digest == self._last_offer:
            return Verdict(Answer.UNCHANGED)
        self._last_offer = digest
        try:
            predictor = load(data)
        except ModelFileError as error:
            self.refused += 1
            self.last_refusal = str(error)[:_MAX_REASON_CHARS]
            return Verdict(Answer.REFUSED, self.last_refusal)
        self._current = predictor
        self.accepted += 1
        self.accepted_at_s = at_s
        self.last_refusal = None
        return Verdict(Answer.ACCEPTED)
