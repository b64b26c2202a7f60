"""Whether the model helps: its corrected estimate held against the plain one, on what became of the requests.

The model is asked about each request of the medium zone, and its answer is recorded with the decision,
whether or not it has a say. The outcome then tells how far off both were. A model has to earn its say on each
backend, and loses it there when the plain estimate has predicted better lately; it is still asked, so it
comes back when it is better again. And a model may predict well and yet put backends into the wrong order: so
pairs of outcomes are compared as well, for the whole fleet.
"""

from collections import deque
from dataclasses import dataclass, field
from math import log

import msgspec

from extproc.fleet.bounds import Count

WINDOW = 100
"""Guessed: outcomes, or pairs of them, after which about a third of what was seen is left."""

NEEDED_GAIN = 0.03
"""Guessed: the share of the plain error by which a model has to be better to begin; to go on it need not be
worse."""

RANKING_SLACK = 0.02
"""Guessed: a share of right pairs that is so much smaller is noise in a window of this length."""

_RECENT = 8
"""Guessed: how many earlier outcomes one is compared with, so that a busy second does not outweigh all
others."""
_WITHIN_S = 1.0
_SAME_LENGTH = 1.25
_LOG_DIFFERS = log(1.2)
"""As in `learning.quality`: requests of about the same length, placed at about the same time, on different
backends; TTFTs within a fifth are equally long."""


@dataclass(frozen=True, slots=True)
class TrustRule:
    """The model has a say about a backend after this many outcomes at the earliest."""

    min_outcomes: Count = 30  # guessed: with fewer, chance decides which error is the smaller one


@dataclass(slots=True, eq=False)
class Contest:
    """Slowly forgetting means of the same figure, of the corrected estimate and of the plain one."""

    count: int = 0
    corrected: float = 0.0
    plain: float = 0.0

    def add(self, corrected: float, plain: float) -> None:
        """Take in the figures of one case."""
        self.count += 1
        weight = 1.0 / self.count if self.count < WINDOW else 1.0 / WINDOW
        self.corrected += weight * (corrected - self.corrected)
        self.plain += weight * (plain - self.plain)


class PredictedOutcome(msgspec.Struct, frozen=True):
    """An outcome beside its predictions; all times but `at_s` in log seconds."""

    backend: str
    at_s: float
    tokens: float
    log_ttft: float
    log_corrected: float
    log_plain: float


class RankRecord:
    """How often either estimate had two outcomes in the right order: one for the whole fleet."""

    __slots__ = ("_recent", "_right")

    def __init__(self) -> None:
        self._right = Contest()
        self._recent: deque[PredictedOutcome] = deque(maxlen=_RECENT)

    @property
    def is_no_worse(self) -> bool:
        """Return whether the corrected estimate ranks at least as well as the plain one, by what is known."""
        return self._right.corrected >= self._right.plain - RANKING_SLACK

    def observe(self, seen: PredictedOutcome) -> None:
        """Compare an outcome with those just before it."""
        log_ttft, log_corrected, log_plain = seen.log_ttft, seen.log_corrected, seen.log_plain
        for other in self._recent:
            slower_by = log_ttft - other.log_ttft
            if -_LOG_DIFFERS <= slower_by <= _LOG_DIFFERS or not _is_alike(seen, other):
                continue
            slower = slower_by > 0.0
            is_right, is_plain_right = log_corrected > other.log_corrected, log_plain > other.log_plain
            self._right.add(is_right is slower, is_plain_right is slower)
        self._recent.append(seen)


def _is_alike(seen: PredictedOutcome, other: PredictedOutcome) -> bool:
    """Return whether two requests were of the same length and time, on different backends."""
    if seen.backend == other.backend or not -_WITHIN_S <= seen.at_s - other.at_s <= _WITHIN_S:
        return False
    tokens, others = seen.tokens, other.tokens
    longer, shorter = (tokens, others) if tokens > others else (others, tokens)
    return longer + 1 <= _SAME_LENGTH * (shorter + 1)


@dataclass(slots=True, eq=False)
class PredictionRecord:
    """How the model in use does on one backend: `is_trusted` is whether it has a say there, by the last
    outcome.

    `ranking` is the fleet's.
    """

    _rule: TrustRule
    _ranking: RankRecord
    is_trusted: bool = False
    _version: str | None = None
    _error: Contest = field(default_factory=Contest)

    @property
    def is_judged(self) -> bool:
        """Return whether enough outcomes are known."""
        return self._error.count >= self._rule.min_outcomes

    @property
    def error(self) -> float | None:
        """The corrected estimate's mean absolute log error; None before the first outcome."""
        return self._error.corrected if self._error.count else None

    @property
    def plain_error(self) -> float | None:
        """The plain estimate's, on the same outcomes."""
        return self._error.plain if self._error.count else None

    def begin(self, version: str | None, ranking: RankRecord) -> None:
        """Follow another model, of which nothing is known yet; the same version changes nothing."""
        if version == self._version:
            return
        self._version = version
        self._ranking = ranking
        self._error = Contest()
        self.is_trusted = False

    def observe(self, version: str, seen: PredictedOutcome) -> None:
        """Learn from an outcome; those of another version than the one in use are late, and ignored."""
        if version != self._version:
            return
        self._ranking.observe(seen)
        error = self._error
        error.add(abs(seen.log_ttft - seen.log_corrected), abs(seen.log_ttft - seen.log_plain))
        if error.count >= self._rule.min_outcomes:
            allowed = error.plain * (1.0 if self.is_trusted else 1.0 - NEEDED_GAIN)
            self.is_trusted = error.corrected <= allowed and self._ranking.is_no_worse
