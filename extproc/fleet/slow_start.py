"""A backend that has to show first what it can do: it has a window of own requests that grows with success.

A server that has just joined, or has come back, compiles and has empty caches: its estimate is the fleet's,
and its load is nil, so that it would get the next dozen requests at once. One that turns requests away (429,
or 503 with Retry-After) has said itself that it has too many. Both have a window, as a connection has in TCP
(Jacobson, "Congestion Avoidance and Control", 1988): it begins at one request, or at half of those that were
in flight when one was turned away, grows with each answer, and doubles with every second in which the
server's counters grow. Envoy has a slow start for endpoints too, by time alone.

It is a preference, not a limit: where none of the candidates has room in its window all of them are asked, so
no request is refused for it. A fleet that is new as a whole is not slowed.
"""

from math import inf

from extproc.fleet.signals import Signals

LONGEST_S = 30.0
"""Borrowed from the examples of Envoy's slow start: by then it has shown what it can, without metrics too."""

ENOUGH = 64.0
"""Guessed: this many at once prove that it takes any number."""

MIN_PAUSE_S = 1.0
MAX_PAUSE_S = 10.0
"""Guessed: a server's Retry-After is for clients, and may say a minute; the router can ask more often."""


class SlowStart:
    """One backend's window; before `begins_at_s` it turns requests away."""

    __slots__ = ("_ends_at_s", "_next_pause_s", "_tokens_total", "begins_at_s", "has_refused", "window")

    def __init__(self, now_s: float) -> None:
        self.begins_at_s = -inf
        self.window = 1.0
        self.has_refused = False
        self._ends_at_s = now_s + LONGEST_S
        self._next_pause_s = MIN_PAUSE_S
        self._tokens_total: float | None = None

    def is_over(self, now_s: float) -> bool:
        """Return whether it has shown what it can."""
        return now_s >= self._ends_at_s or self.window >= ENOUGH

    def turned_away(self, own: int, retry_after_s: float | None, now_s: float) -> None:
        """Pause for as long as the server asks for, within limits; repeated pauses double."""
        if now_s < self.begins_at_s:
            return  # sent before the first of them was known
        self.has_refused = True
        pause_s = min(MAX_PAUSE_S, max(self._next_pause_s, retry_after_s or 0.0))
        self._next_pause_s = min(MAX_PAUSE_S, 2 * self._next_pause_s)
        self.begins_at_s = now_s + pause_s
        self._ends_at_s = self.begins_at_s + LONGEST_S
        self.window = min(ENOUGH / 2, max(1.0, own / 2))

    def answered(self) -> None:
        """Grow with an answer."""
        self.window += 1.0
        self._next_pause_s = MIN_PAUSE_S

    def scraped(self, signals: Signals, own: int, elapsed_s: float) -> None:
        """Grow with the time in which the server computed tokens, while it had requests of ours."""
        before = self._tokens_total
        self._tokens_total = (signals.prompt_tokens_total or 0.0) + (signals.generation_tokens_total or 0.0)
        if own > 0 and before is not None and self._tokens_total > before:
            self.window *= 2.0 ** min(elapsed_s, 1.0)
