"""How fast a backend is, learned from its own outcomes: the parameters of `policy.expected_wait`.

`base` and `token` are the line of TTFT over prompt tokens where a place was free, least squares drawn towards
the fleet's line (ridge regression). `turn` is the time from one end of a request to the next when all places
are taken: the waits that were seen, by the places in the queue that they were for, drawn towards Little's law
(1961), stay / limit. All prompts are without the tokens that are expected in the backend's prefix cache
(`fleet.sent_prefixes`).

Everything is forgotten by time, towards what is true of the whole fleet: a backend that got no traffic for
some minutes is tried again, and a backend that changes is learned anew. With nothing known all are equal, and
the load alone decides.
"""

from dataclasses import dataclass
from math import exp, isinf

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
USUAL_PROMPT_SPREAD = 200.0
"""Guessed, in tokens: prompts that vary less than this hardly tell the time of a token."""
UNKNOWN_LIMIT = 64.0
"""Guessed: what `stay` is divided by where the limit is not known; equal for all, so it changes no order."""
SHORTEST_TOKEN_S = 1e-7
SHORTEST_TURN_S = 1e-6
"""Guessed: no engine is as fast. Answers of one token take no time after it, and others divide by these."""


class Answered(msgspec.Struct, frozen=True):
    """An outcome: the load that was met, the prompt without what was expected in the prefix cache, time to
    the first token, and from there to the last, None where that is not known.
    """

    load: float
    prompt_tokens: float
    ttft_s: float
    decode_s: float | None


class Pace(msgspec.Struct, frozen=True):
    """What is known; the start is guessed, and the same for all, so that it changes no order."""

    base_s: float = 0.02
    token_s: float = 1e-4
    turn_s: float = 0.05
    stay_s: float = 1.0


UNKNOWN = Pace()


@dataclass(slots=True)
class PaceLearning:
    """What was seen of one backend, or of the whole fleet, slowly forgotten."""

    _known_at_s: float = 0.0
    _free: float = 0.0  # outcomes that found a free place, and the sums of a line through them
    _tokens: float = 0.0
    _ttft_s: float = 0.0
    _tokens_squared: float = 0.0
    _tokens_ttft: float = 0.0
    _turns: float = 0.0
    _waited_s: float = 0.0
    _outcomes: float = 0.0
    _stays_s: float = 0.0

    def learn(self, pace: Pace, seen: Answered, limit: float, common: Pace, now_s: float) -> Pace:
        """Return the pace after a request was answered; `common` is that of the whole fleet."""
        self._forget(now_s)
        base_s, token_s, turns = pace.base_s, pace.token_s, seen.load - limit + 1
        if turns > 0:
            self._turns += turns
            self._waited_s += max(0.0, seen.ttft_s - base_s - token_s * seen.prompt_tokens)
        else:
            self._free += 1
            self._tokens += seen.prompt_tokens
            self._ttft_s += seen.ttft_s
            self._tokens_squared += seen.prompt_tokens**2
            self._tokens_ttft += seen.prompt_tokens * seen.ttft_s
        if seen.decode_s is not None:
            self._outcomes += 1
            self._stays_s += seen.decode_s
        return self._pace(limit, common)

    def refreshed(self, limit: float, common: Pace, now_s: float) -> Pace:
        """Return the pace as time passes without an outcome: it drifts towards the fleet's."""
        self._forget(now_s)
        return self._pace(limit, common)

    def _pace(self, limit: float, common: Pace) -> Pace:
        base_s, token_s = self._line(common) if self._free > 1e-3 else (common.base_s, common.token_s)
        stay_s = _drawn(self._stays_s, self._outcomes, common.stay_s, PRIOR_OUTCOMES)
        by_little_s = (stay_s + base_s) / (UNKNOWN_LIMIT if isinf(limit) else limit)
        turn_s = max(SHORTEST_TURN_S, _drawn(self._waited_s, self._turns, by_little_s, PRIOR_TURNS))
        return Pace(base_s, max(SHORTEST_TOKEN_S, token_s), turn_s, stay_s)

    def _line(self, common: Pace) -> tuple[float, float]:
        mean_tokens, mean_s = self._tokens / self._free, self._ttft_s / self._free
        spread = max(0.0, self._tokens_squared - self._free * mean_tokens**2)
        together = self._tokens_ttft - self._free * mean_tokens * mean_s
        ridge = PRIOR_OUTCOMES * USUAL_PROMPT_SPREAD**2
        token_s = max(0.0, (together + ridge * common.token_s) / (spread + ridge))
        above_s = self._free * (mean_s - token_s * mean_tokens)
        return max(0.0, _drawn(above_s, self._free, common.base_s, PRIOR_OUTCOMES)), token_s

    def _forget(self, now_s: float) -> None:
        kept = exp(-max(0.0, now_s - self._known_at_s) / FORGETTING_S)
        self._known_at_s = max(self._known_at_s, now_s)
        self._free *= kept
        self._tokens *= kept
        self._ttft_s *= kept
        self._tokens_squared *= kept
        self._tokens_ttft *= kept
        self._turns *= kept
        self._waited_s *= kept
        self._outcomes *= kept
        self._stays_s *= kept


def _drawn(total: float, weight: float, prior: float, prior_weight: float) -> float:
    """Return the mean of what was seen, drawn towards what was expected."""
    return (total + prior_weight * prior) / (weight + prior_weight)
