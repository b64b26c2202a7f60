"""When one backend is asked next: at its share of the budget, and never for more than its share of CPU.

Length, shape and content of an answer are the server's choice. So its cost is measured, and paid for with
pauses: a token bucket in seconds of CPU. A server whose answers are of no use is asked at growing intervals,
whatever they cost.
"""

from math import inf

from extproc.fleet.signals import ScrapeRule

CPU_SHARE = 0.01
"""Guessed: of one core, for one backend. Measured: 48 KB take 0.2 ms, which is a fifth of it at 10 Hz."""

_BURST_S = 0.05
"""Guessed: one answer that was slow to read, on a machine that is busy, costs no pause."""

MAX_PAUSE_S = 5.0
"""Guessed: between answers that are of no use; a server that gets well is noticed within it."""

MIN_MODELS_INTERVAL_S = 1.0
"""Guessed: a server that does not serve what it lists is asked for its list no more often."""


class ScrapePace:
    """One backend's; times are seconds of one monotonic clock. `spent_s` is all CPU that was ever spent."""

    def __init__(self, rule: ScrapeRule, now_s: float) -> None:
        self.spent_s = 0.0
        self._rule = rule
        self._left_s = _BURST_S
        self._filled_at_s = now_s
        self._useless = self._useless_models = 0
        self._longest_pause_s = MAX_PAUSE_S
        self._models_due_s = now_s
        self._models_asked_at_s = now_s - MIN_MODELS_INTERVAL_S

    def spend(self, cpu_s: float, now_s: float) -> None:
        """Note that an answer took so much CPU; more than there is delays the next question."""
        self.spent_s += cpu_s
        earned_s = CPU_SHARE * (now_s - self._filled_at_s)
        self._left_s = min(_BURST_S, self._left_s + earned_s) - cpu_s
        self._filled_at_s = now_s

    def answered(self, *, is_useful: bool, is_locked: bool = False) -> None:
        """Note whether the newest answer, or its absence, tells anything.

        A server that wants another key logs each question, and is asked as rarely as for its models.
        """
        self._useless = 0 if is_useful else self._useless + 1
        self._longest_pause_s = self._rule.models_interval_s if is_locked else MAX_PAUSE_S

    def interval_s(self, usual_s: float) -> float:
        """Return how long after the last question the next one comes, which is `usual_s` or longer."""
        interval_s = usual_s
        if self._useless:
            interval_s = max(
                interval_s, _doubled(self._rule.idle_interval_s, self._useless, self._longest_pause_s)
            )
        return max(interval_s, -self._left_s / CPU_SHARE)

    def are_models_due(self, now_s: float) -> bool:
        """Return whether the server is to be asked for its models."""
        return now_s >= self._models_due_s

    def models_answered(self, *, is_useful: bool, now_s: float) -> None:
        """Note that it was asked at `now_s`."""
        rule = self._rule
        self._useless_models = 0 if is_useful else self._useless_models + 1
        pause_s = _doubled(rule.idle_interval_s, self._useless_models, rule.models_interval_s)
        self._models_asked_at_s = now_s
        self._models_due_s = now_s + (rule.models_interval_s if is_useful else pause_s)

    def want_models(self) -> None:
        """Note that its models are wanted now, whenever it was asked last."""
        self._models_due_s = -inf

    def doubt_models(self) -> None:
        """Note that the server does not serve what it has listed: it is asked again soon."""
        self._models_due_s = min(self._models_due_s, self._models_asked_at_s + MIN_MODELS_INTERVAL_S)

    def restarted(self) -> None:
        """Note that nothing listened there, or that there is another key: the next answer may be another."""
        self._models_due_s = 0.0
        self._useless = self._useless_models = 0


def _doubled(first_s: float, times: int, longest_s: float) -> float:
    return min(longest_s, first_s * 2.0 ** min(times - 1, 16))
