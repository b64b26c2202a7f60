"""The prompt tokens that a backend has been sent and has not computed yet: what the next request waits for.

An engine admits prompts in the order of arrival and computes them one after another, so the newest of the own
requests in flight are those that wait. Their number is known twice: by the gauge of waiting requests, and,
where requests are stuck before the engine, by those in flight that do not run. So each scrape shows how many
of the newest prompts were still to be computed at the time of its gauges (`fleet.gauge_lag`). That is carried
on to the present: what was sent since is exact, and the backlog falls at the backend's own rate. A wrong rate
or a wrong length is corrected by the next scrape, and a request that ends gives back its prompt if that still
waits.
"""

from dataclasses import dataclass, field
from itertools import islice, takewhile
from math import inf

from extproc.fleet.signals import Signals

SMOOTHING_S = 3.0
"""Guessed: prompts are counted when they are complete, and long ones take seconds."""

MOST_SHARE = 2.0
"""Guessed: how far the share may lie off. Prompts are counted when they are complete, hits in the prefix
cache before, so what one scrape shows may be ten times too large, or negative.
"""

USUAL_WEIGHT = 0.1
"""Guessed: the share of the newest prompt in the usual length, which foreign requests are taken to have."""


Prompt = tuple[float, float]
"""The tokens of a prompt, and when it was sent."""


@dataclass(slots=True, eq=False)
class PrefillBacklog:
    """The prompts that wait on one backend, oldest first, and the tokens under computation.

    `share` is the part of the recent time that the engine spent on prompts, from 0 to about 1.
    """

    share: float = 0.0
    _waiting: dict[object, Prompt] = field(default_factory=dict)
    _computing_tokens: float = 0.0
    _prompt_tokens_total: float | None = None
    _computed_total: float = 0.0
    _scraped_at_s: float = 0.0
    _read_at_s: float = 0.0
    _usual_tokens: float = 0.0

    @property
    def is_computing(self) -> bool:
        """Whether a prompt that was admitted is still being computed, as of the last scrape."""
        return self._computing_tokens > 0

    @property
    def next_tokens(self) -> float:
        """The tokens of the prompt that has waited longest; of the usual one where only others' wait."""
        return next(iter(self._waiting.values()))[0] if self._waiting else self._usual_tokens

    def sent(self, request: object, tokens: float, now_s: float) -> None:
        """Note a prompt with this many tokens to compute."""
        self._waiting[request] = (tokens, now_s)
        self._usual_tokens += USUAL_WEIGHT * (tokens - self._usual_tokens)

    def ended(self, request: object) -> float:
        """Forget a request that has ended, and return the tokens of its prompt if that still waited."""
        return self._waiting.pop(request, (0.0, 0.0))[0]

    def computed(self, request: object) -> float:
        """Forget a prompt that is computed, and return the tokens of those sent after it, which may wait yet.

        Prompts are computed one after another. It is inf where a scrape has shown more: the prompt waited no
        longer.
        """
        if request not in self._waiting:
            return inf
        later = takewhile(lambda each: each is not request, reversed(self._waiting))
        left = sum(self._waiting[each][0] for each in later)
        del self._waiting[request]
        return left

    def scraped(
        self, signals: Signals, stuck: float, token_s: float, read_at_s: float, now_s: float
    ) -> float:
        """Return the tokens left to compute, by a scrape whose gauges are of `read_at_s`.

        `stuck` own requests are neither running nor waiting there.
        """
        elapsed_s, before_s = now_s - self._scraped_at_s, self._read_at_s
        self._scraped_at_s, self._read_at_s = now_s, read_at_s
        self._follow_share(signals, token_s, elapsed_s)
        self._computing_tokens = max(0.0, self._computing_tokens - elapsed_s / token_s)
        waiting = signals.waiting + max(0.0, stuck)
        young = self._sent_since(read_at_s)
        counted = len(self._waiting) - len(young)
        self._admit(counted - round(waiting), before_s, read_at_s, token_s)
        if signals.running == 0 and waiting == 0:
            self._computing_tokens = 0.0
        foreign_tokens = max(0.0, waiting - counted) * self._usual_tokens
        still_waiting = islice(self._waiting.values(), max(0, len(self._waiting) - len(young)))
        counted_tokens = sum(tokens for tokens, _ in still_waiting)
        left = counted_tokens + foreign_tokens + self._computing_tokens
        return _after(left, young, read_at_s, token_s, now_s)

    def _sent_since(self, from_s: float) -> list[Prompt]:
        """Return the prompts that are too young for the gauges, oldest first."""
        young = list(takewhile(lambda prompt: prompt[1] > from_s, reversed(self._waiting.values())))
        return young[::-1]

    def _admit(self, count: int, before_s: float, read_at_s: float, token_s: float) -> None:
        """Move the oldest prompts from those that wait to those under computation.

        They were admitted at some time between two readings of the gauges, and after they were sent: half of
        that time they have been computed.
        """
        oldest = list(islice(self._waiting.items(), max(0, count)))
        if not oldest:
            return
        for request, _ in oldest:
            del self._waiting[request]
        sent_at_s = oldest[0][1][1]
        computed = 0.5 * max(0.0, read_at_s - max(before_s, sent_at_s)) / token_s
        admitted = sum(tokens for _, (tokens, _) in oldest)
        self._computing_tokens = min(admitted, self._computing_tokens + max(0.0, admitted - computed))

    def _follow_share(self, signals: Signals, token_s: float, elapsed_s: float) -> None:
        total, before = signals.prompt_tokens_total, self._prompt_tokens_total
        computed, computed_before = (total or 0.0) - (signals.prefix_hits_total or 0.0), self._computed_total
        self._prompt_tokens_total, self._computed_total = total, computed
        if total is None or before is None or total < before or elapsed_s <= 0:
            return  # unknown, or the server has started anew
        share = (computed - computed_before) * token_s / elapsed_s
        weight = min(1.0, elapsed_s / SMOOTHING_S)
        self.share = max(-MOST_SHARE, min(MOST_SHARE, self.share + weight * (share - self.share)))


def _after(left: float, sent: list[Prompt], from_s: float, token_s: float, now_s: float) -> float:
    """Return what is left now of tokens at `from_s`, and of prompts sent since, at the backend's own rate."""
    for tokens, sent_at_s in sent:
        left = max(0.0, left - (sent_at_s - from_s) / token_s) + tokens
        from_s = sent_at_s
    return max(0.0, left - (now_s - from_s) / token_s)
