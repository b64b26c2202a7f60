"""The estimate of one backend's engine: its pace, its places, and the prompts that it has still to compute.

The terms of a request's wait follow from these (`policy.expected_wait`). Outcomes and scrapes teach them; as
long as there are none they drift towards the fleet's. `Backend` extends the class: a decision reads these
values of every candidate, and plain attributes of one object cost it least.
"""

from math import inf, isnan, nan

from extproc.fleet.fleet_averages import FleetAverages
from extproc.fleet.pace import CROWDING, Answered, PaceLearning
from extproc.fleet.prefill_backlog import PrefillBacklog
from extproc.fleet.running_limit import RunningLimit
from extproc.fleet.signals import Signals

PREFILLING = 0.6
"""Guessed: requests before an engine that spends so much time on prompts wait for these, not for places."""

STEP_SHARE = 0.5
"""Tried on a recorded hour of chat: the share of `base` that a prompt adds to the iterations that compute it.

Those behind it wait for that, too. It is at most as long as its tokens take: short ones share an iteration.
"""

PROMPT_WEIGHT = 0.1
"""Guessed: the share of the newest prompt in the usual one here, by which memory becomes free."""

OBSERVED_WEIGHT = 0.2
"""Guessed: the share of the newest TTFT in `observed_ttft_s`."""


class EngineEstimate:
    """The `pace` of one engine, the requests that it serves at once, and when it has computed its prompts.

    `running_limit` is its own limit of these requests, inf until known, and `places` how many it is taken to
    have. By its pace the prompts that were sent are computed at `prefilled_at_s`. In its KV memory `kv_free`
    tokens are left for the next prompt, inf where that is not known, and each further one becomes free in
    `kv_freed_s`. `observed_ttft_s` is NaN until there was one. `turns_s` and `crowding_s` are the terms of
    the next request that change only with an event here, not with the request: `policy.guard` reads them.
    """

    __slots__ = (
        "_averages",
        "_backlog",
        "_is_limited_by_memory",
        "_most_running",
        "_pace_learning",
        "_prompt_tokens",
        "_running_limit",
        "crowding_s",
        "kv_free",
        "kv_freed_s",
        "observed_ttft_s",
        "pace",
        "places",
        "prefilled_at_s",
        "running_limit",
        "turns_s",
        "usual_prompt",
    )

    def __init__(self, averages: FleetAverages, max_num_seqs: int | None) -> None:
        self._averages = averages
        self.usual_prompt = averages.usual_prompt
        self._running_limit = RunningLimit(inf if max_num_seqs is None else float(max_num_seqs))
        self.running_limit = self.places = self._running_limit.limit
        self.pace = averages.pace
        self._pace_learning = PaceLearning()
        self.prefilled_at_s = -inf
        self._backlog = PrefillBacklog()
        self._is_limited_by_memory = False
        self._most_running = self._prompt_tokens = 0.0
        self.kv_free, self.kv_freed_s = inf, 0.0
        self.observed_ttft_s = nan
        self.expect_next(0.0)

    @property
    def _is_prefilling(self) -> bool:
        """Whether requests wait for prompts to be computed, not for places."""
        return self._backlog.share >= PREFILLING

    @property
    def _sure_places(self) -> float:
        """The places that are no guess; inf where they are."""
        return self._running_limit.limit if self._running_limit.is_sure else inf

    def expect_prompt(self, request: object, tokens: float, now_s: float) -> None:
        """Add a request's prompt to what is to be computed here."""
        self.usual_prompt.sent(tokens)
        known_tokens = self._prompt_tokens or tokens
        self._prompt_tokens = known_tokens + PROMPT_WEIGHT * (tokens - known_tokens)
        pace, begins_at_s = self.pace, self.prefilled_at_s
        step_tokens = STEP_SHARE * pace.base_s / pace.token_s
        tokens += step_tokens if step_tokens < tokens else tokens
        self._backlog.sent(request, tokens, now_s)
        self.kv_free -= tokens
        self.prefilled_at_s = (begins_at_s if begins_at_s > now_s else now_s) + pace.token_s * tokens

    def give_back_prompt(self, request: object) -> None:
        """Take back what is left of a request's prompt, however the request ended."""
        tokens = self._backlog.ended(request)
        self.prefilled_at_s -= self.pace.token_s * tokens
        self.kv_free += tokens

    def prompt_computed(self, request: object, now_s: float) -> None:
        """Follow that a request's prompt is computed here, and with it all that were sent before it."""
        self.prefilled_at_s = min(
            self.prefilled_at_s, now_s + self.pace.token_s * self._backlog.computed(request)
        )

    def observed(self, ttft_s: float) -> None:
        """Learn from a stream that had its first token after `ttft_s`."""
        known_s = self.observed_ttft_s
        self.observed_ttft_s = ttft_s if isnan(known_s) else known_s + OBSERVED_WEIGHT * (ttft_s - known_s)

    def expect_next(self, load: float) -> None:
        """Keep the terms of one more request as of this load."""
        self.turns_s, self.crowding_s = self.load_terms(load)

    def load_terms(self, load: float) -> tuple[float, float]:
        """Return the terms of a request that meets this load: its turns, and the crowding."""
        load_with_it, turn_s = load + 1.0, self.pace.turn_s
        turns_s = turn_s * (load_with_it - self.places)
        return (turns_s if turns_s > 0.0 else 0.0), turn_s * CROWDING * load_with_it

    def _learn_pace(self, seen: Answered, now_s: float) -> bool:
        """Learn from a stream that has ended; return whether it contradicts what was learned before."""
        limit, fleet = self.places, self._averages
        is_contradicted = self._pace_learning.is_contradicted(seen, limit, self.pace.token_s, now_s)
        if is_contradicted:
            self._pace_learning.withdraw(fleet.pace_learning, now_s)
        # Of the same weight in both, so that it can be withdrawn from the fleet's.
        fleet.pace = common = fleet.pace_learning.learn(self.pace, seen, limit, fleet.pace, now_s)
        self.pace = self._pace_learning.learn(self.pace, seen, limit, common, now_s)
        return is_contradicted

    def _follow_places(self, signals: Signals, smallest_own: float, ended: float, most: float) -> None:
        """Learn the server's own limit, and its places from that; no more than `most` are guessed."""
        learner, fleet = self._running_limit, self._averages
        if self._is_prefilling or not self._backlog.is_computing or not signals.waiting:
            learner.seen(signals.running, signals.waiting, smallest_own, ended, self._is_prefilling)
        limit = self.running_limit = learner.limit
        self._is_limited_by_memory = limit < inf and (
            self._is_limited_by_memory or self._is_short_of_memory(signals)
        )
        if learner.is_sure and not self._is_limited_by_memory:
            fleet.learn_places(self, limit)
        self._most_running = max(self._most_running, signals.running)
        self.places = self._places(signals, most)

    def _places(self, signals: Signals, most: float) -> float:
        """Return the own limit, or what runs while others wait for memory; where neither is known, as others.

        At least it has as many as it has run. All of these are what servers say, so that no more than its own
        `most` count.
        """
        limit, usual = self.running_limit, self._averages.usual_places
        if self._is_limited_by_memory and signals.waiting:
            return min(limit, max(1.0, signals.running))
        if limit == inf and usual:
            return max(min(max(usual, self._most_running), most), signals.running)
        return limit

    def _follow_prompts(self, signals: Signals, smallest_own: float, now_s: float, lag_s: float) -> None:
        """Follow the pace as it drifts, and by it the time of the prompts that a scrape shows to be left."""
        self.pace = self._pace_learning.refreshed(self.places, self._averages.pace, now_s)
        stuck = smallest_own - signals.running - signals.waiting
        left = self._backlog.scraped(signals, stuck, self.pace.token_s, now_s - lag_s, now_s)
        self.prefilled_at_s = now_s + self.pace.token_s * left
        self._follow_memory(signals, left)

    def _is_short_of_memory(self, signals: Signals) -> bool:
        """Return whether the next prompt waits for memory, of which others may have more."""
        fraction, size = signals.kv_cache_fraction, signals.kv_cache_tokens
        return (
            fraction is not None and size is not None and size * (1.0 - fraction) < self._backlog.next_tokens
        )

    def _follow_memory(self, signals: Signals, left: float) -> None:
        """Follow the KV memory: prompts that are `left` to compute will take some, ends give it back.

        By Little's law (1961) those that run end in the time that a request stays. For prompts each end
        frees as much as its own prompt took: the rest goes to the output of the others.
        """
        fraction, size = signals.kv_cache_fraction, signals.kv_cache_tokens
        if fraction is None or size is None:
            self.kv_free = inf
            return
        self.kv_free = size * (1.0 - fraction) - left
        used = size * fraction
        prompts = min(used, signals.running * self._prompt_tokens) or used
        self.kv_freed_s = self.pace.stay_s / max(1.0, prompts)
