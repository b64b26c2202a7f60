"""How fast a backend is, learned from its own outcomes: the parameters of `policy.expected_wait`.

`base` and `token` are the line of TTFT over all tokens that had to be computed until then, where a place was
free. How many were ahead of a request is the router's own estimate, which goes by `token` itself. So the
slope follows from the request's own tokens alone, which are known: instrumental variable (Wald, "The fitting
of straight lines if both variables are subject to error", 1940). Where all prompts are of one length they
show no slope, and the line is the fleet's, scaled to what was seen. Errors count in proportion, so that a few
long waits do not decide what a short prompt takes, and the line is drawn towards the fleet's (ridge
regression).

`turn` is the time from one end of a request to the next when all places are taken: the waits that were seen,
by the places in the queue that they were for, drawn towards Little's law (1961), which is stay / limit. All
prompts are without the tokens that are expected in the backend's prefix cache (`fleet.sent_prefixes`).

Everything is forgotten by time, towards what is true of the whole fleet: a backend that got no traffic for
some minutes is tried again, and a backend that changes is learned anew. With nothing known all are equal, and
the load alone decides.
"""

from dataclasses import dataclass, field
from math import exp, inf

import msgspec

FORGETTING_S = 60.0
"""Guessed: long enough for hundreds of outcomes under load, short enough for a machine that slows down."""
PRIOR_OUTCOMES = 4.0
"""Guessed: the weight of what the fleet is like, in outcomes."""
PRIOR_TURNS = 32.0
"""Guessed: the weight of stay / limit, in places of a queue."""
CROWDING = 0.02
"""Guessed, in turns: a place that this request takes is one that the next one lacks, and the more are taken
the less sure it is that one becomes free in time."""
CONTRADICTING = 0.5
CONTRADICTIONS = 3
STALE_S = 5.0
"""Guessed: an answer within half the least time that is believed possible contradicts what is believed. Three
in a row are no chance; one is enough after a silence, when nothing is left of what was seen before."""
USUAL_PROMPT_SPREAD = 200.0
"""Guessed, in tokens: prompts that vary less than this hardly tell the time of a token."""
_USUAL_SPREAD = USUAL_PROMPT_SPREAD**2
LEAST_SLOPE = 0.25
"""Tried on a recorded hour of chat: the least time of a token, as a share of the fleet's.

Where requests wait for a reason that the estimate does not know, the line may fall. Then prompts ahead would
cost nothing, and ever more requests would be sent to wait there.
"""
NOISE_S = 0.1
"""Tried on tuning traffic: the error that a short TTFT may have; a longer one may be wrong in proportion."""
SURPRISE = 4.0
"""Guessed: a TTFT longer than predicted by more than this factor weighs as if it had been predicted by that
factor too short. Else the first long ones would outweigh, for minutes, the short ones that follow."""
UNKNOWN_LIMIT = 64.0
"""Guessed: what `stay` is divided by where the limit is not known; equal for all, so it changes no order."""
SHORTEST_TOKEN_S = 1e-7
SHORTEST_TURN_S = 1e-6
SHORTEST_TTFT_S = 1e-3
"""Guessed: no engine is as fast. Answers of one token take no time after it, and others divide by these."""


class Answered(msgspec.Struct, frozen=True):
    """An outcome: the load that was met, the prompt without what was expected in the prefix cache, what was
    to be computed before it, time to the first token, and from there to the last, None where that is not
    known. Others had to end first for `turns_s`, by the estimate.
    """

    load: float
    new_tokens: float
    ahead_tokens: float
    ttft_s: float
    decode_s: float | None
    turns_s: float = 0.0


class Pace(msgspec.Struct, frozen=True):
    """The state so far; the start is guessed, and the same for all, so that it changes no order."""

    base_s: float = 0.02
    token_s: float = 1e-4
    turn_s: float = 0.05
    stay_s: float = 1.0


UNKNOWN = Pace()


@dataclass(slots=True)
class _Line:
    """The sums of a line through outcomes that found a free place; the number and the weights of these."""

    outcomes: float = 0.0
    weights: float = 0.0
    tokens: float = 0.0
    ttft_s: float = 0.0
    new_tokens: float = 0.0
    new_by_tokens: float = 0.0
    new_by_ttft: float = 0.0

    def is_known(self) -> bool:
        return self.outcomes > 1e-3 and self.weights > 1e-9

    def add(self, weight: float, seen: Answered) -> None:
        ttft_s, new_tokens = seen.ttft_s, weight * seen.new_tokens
        tokens = seen.new_tokens + seen.ahead_tokens
        self.outcomes += 1
        self.weights += weight
        self.tokens += weight * tokens
        self.ttft_s += weight * ttft_s
        self.new_tokens += new_tokens
        self.new_by_tokens += new_tokens * tokens
        self.new_by_ttft += new_tokens * ttft_s

    def fade(self, kept: float) -> None:
        self.outcomes *= kept
        self.weights *= kept
        self.tokens *= kept
        self.ttft_s *= kept
        self.new_tokens *= kept
        self.new_by_tokens *= kept
        self.new_by_ttft *= kept

    def subtract(self, other: "_Line") -> None:
        for name in self.__slots__:
            setattr(self, name, max(0.0, getattr(self, name) - getattr(other, name)))

    def drawn_to(self, common: Pace) -> tuple[float, float]:
        """Return base and token of the line, drawn towards the fleet's."""
        weights, new_tokens, common_token_s = self.weights, self.new_tokens, common.token_s
        prior = PRIOR_OUTCOMES * weights / self.outcomes
        all_weights = weights + prior
        mean_tokens, mean_s = self.tokens / weights, self.ttft_s / weights
        expected_s = common.base_s + common_token_s * mean_tokens
        common_s = expected_s if expected_s > SHORTEST_TTFT_S else SHORTEST_TTFT_S
        scale = (weights * mean_s / common_s + prior) / all_weights
        spread = self.new_by_tokens - new_tokens * mean_tokens
        together = self.new_by_ttft - new_tokens * mean_s
        ridge = prior * _USUAL_SPREAD
        slope = (together + ridge * scale * common_token_s) / (ridge + (spread if spread > 0.0 else 0.0))
        least_s = LEAST_SLOPE * common_token_s
        token_s = slope if slope > least_s else least_s
        base_s = (weights * (mean_s - token_s * mean_tokens) + prior * common.base_s) / all_weights
        return (base_s if base_s > 0.0 else 0.0), token_s


@dataclass(slots=True)
class PaceLearning:
    """The observations of one backend, or of the whole fleet, slowly forgotten."""

    _known_at_s: float = 0.0
    _line: _Line = field(default_factory=_Line)
    _turns: float = 0.0
    _waited_s: float = 0.0
    _outcomes: float = 0.0
    _stays_s: float = 0.0
    _heard_at_s: float = 0.0
    _contradictions: int = 0

    def learn(self, pace: Pace, seen: Answered, limit: float, common: Pace, now_s: float) -> Pace:
        """Return the pace after a request was answered; `common` is that of the whole fleet."""
        self._forget(now_s)
        base_s, computing_s = pace.base_s, pace.token_s * (seen.new_tokens + seen.ahead_tokens)
        ttft_s, turns = seen.ttft_s, seen.load - limit + 1.0
        if turns > 0.0:
            self._turns += turns
            self._waited_s += max(0.0, ttft_s - base_s - computing_s)
        elif seen.turns_s <= 0.0:  # else it waited for memory, which tells nothing of the pace
            # By what was predicted: a short TTFT out of the prefix cache, by surprise, is no surer for it.
            own_s, least_s = base_s + computing_s, ttft_s / SURPRISE
            predicted_s = own_s if own_s > least_s else least_s
            weight = (NOISE_S / (NOISE_S + predicted_s)) ** 2
            self._line.add(weight, seen)
        if seen.decode_s is not None:
            self._outcomes += 1
            self._stays_s += seen.decode_s
        return self._pace(limit, common)

    def is_contradicted(self, seen: Answered, limit: float, token_s: float, now_s: float) -> bool:
        """Return whether an outcome shows that what was seen before is true no more.

        A slow answer has many reasons, one that is too fast for the machine has only this. Tokens do not
        matter: some may have been in the prefix cache.
        """
        is_stale = now_s - self._heard_at_s >= STALE_S
        self._heard_at_s = now_s
        line = self._line
        if seen.load - limit + 1.0 > 0.0 or not line.is_known():
            return False
        base_s = (line.ttft_s - token_s * line.tokens) / line.weights
        is_faster = seen.ttft_s < CONTRADICTING * base_s
        self._contradictions = self._contradictions + 1 if is_faster else 0
        return is_faster and (is_stale or self._contradictions >= CONTRADICTIONS)

    def withdraw(self, fleet: "PaceLearning", now_s: float) -> None:
        """Forget where a place was free, and take it back from what was seen of the whole fleet."""
        self._forget(now_s)
        fleet._forget(now_s)
        fleet._line.subtract(self._line)
        self._line = _Line()
        self._contradictions = 0

    def refreshed(self, limit: float, common: Pace, now_s: float) -> Pace:
        """Return the pace as time passes without an outcome: it drifts towards the fleet's."""
        self._forget(now_s)
        return self._pace(limit, common)

    def _pace(self, limit: float, common: Pace) -> Pace:
        line = self._line
        base_s, token_s = line.drawn_to(common) if line.is_known() else (common.base_s, common.token_s)
        stay_s = _drawn(self._stays_s, self._outcomes, common.stay_s, PRIOR_OUTCOMES)
        by_little_s = (stay_s + base_s) / (UNKNOWN_LIMIT if limit == inf else limit)
        turn_s = _drawn(self._waited_s, self._turns, by_little_s, PRIOR_TURNS)
        return Pace(
            base_s,
            token_s if token_s > SHORTEST_TOKEN_S else SHORTEST_TOKEN_S,
            turn_s if turn_s > SHORTEST_TURN_S else SHORTEST_TURN_S,
            stay_s,
        )

    def _forget(self, now_s: float) -> None:
        """Let what was seen fade; of the outcomes that come at the same moment, the first one does it."""
        if now_s <= self._known_at_s:
            return
        kept = exp((self._known_at_s - now_s) / FORGETTING_S)
        self._known_at_s = now_s
        self._line.fade(kept)
        self._turns *= kept
        self._waited_s *= kept
        self._outcomes *= kept
        self._stays_s *= kept


def _drawn(total: float, weight: float, prior: float, prior_weight: float) -> float:
    """Return the mean of what was seen, drawn towards what was expected."""
    return (total + prior_weight * prior) / (weight + prior_weight)
