"""How long nothing was heard of a backend, and when it is to be tried again.

The knowledge of a backend changes only by its own outcomes, so one that is believed to be slow gets no
traffic that could show otherwise: the fleet explores (as in Sutton and Barto, "Reinforcement Learning", 2018,
chapter 2). A backend is due for one request when nothing of ours was there for a while, and others have got
several times its share of the requests in between. A try that changes nothing doubles the patience.
"""

from dataclasses import dataclass
from math import inf

MIN_PATIENCE_S = 2.0
MAX_PATIENCE_S = 16.0
"""Guessed: a fleet is level again within 30 s of a cause that is gone; one that is slow costs little."""

MISSED_SHARES = 4.0
"""Guessed: at most a fifth of a backend's share of the requests are tries."""


@dataclass(slots=True)
class Silence:
    """One backend's silence; `placed_before` requests were placed in the fleet when it began.

    The backend was last chosen at `chosen_at_s`.
    """

    since_s: float
    placed_before: int = 0
    patience_s: float = MIN_PATIENCE_S
    chosen_at_s: float = -inf

    def begin(self, now_s: float, placed: int) -> None:
        """Note that something was heard of the backend."""
        self.since_s = now_s
        self.placed_before = placed

    def is_over(self, now_s: float, placed: int, members: int) -> bool:
        """Return whether the backend is due, after this many requests `placed` among this many `members`."""
        has_missed = placed - self.placed_before >= MISSED_SHARES * members
        return has_missed and now_s - self.since_s >= self.patience_s

    def chosen(self, now_s: float, *, is_try: bool) -> None:
        """Note that it gets a request; where a try changes nothing, the next one comes later."""
        self.chosen_at_s = now_s
        self.patience_s = min(2 * self.patience_s, MAX_PATIENCE_S) if is_try else MIN_PATIENCE_S
