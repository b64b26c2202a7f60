"""A backend's limit of requests in flight, found from its answers: `guard.max_active: auto`.

Up to the knee all requests that a server holds are in its batch; each one beyond waits for another to leave.
So by Little's law the share of requests in flight that wait is the share of its time there for which one
waits. That wait is its TTFT beyond that of a calm server for its input length. The limit follows

    limit <- gradient * limit + headroom,    gradient = 1 - waiting / in flight,

and settles where the headroom is what waits: the form of Netflix's Gradient2 and of Envoy's adaptive
concurrency filter, with TCP Vegas' estimate of a queue (Brakmo and Peterson, 1995; Netflix's VegasLimit).
They compare whole response times with the shortest; here those differ by the output's length, which says
nothing of load, and TTFT alone falls to a tenth as soon as anybody waits.

- Prompts also wait for each other's computing, on this side of the knee. Requests that met less load show by
  how much, and that is taken off, up to a bound: a queue that they wait in too must not hide itself.
- A calm server can be known while it is never calm: a shorter TTFT counts at once, and a longer one, little
  by little, only where few requests were met. Under permanent load the reference can only fall, so it needs
  no pauses in which it is measured, as Envoy's minRTT does.
- Until the first queue the limit doubles, as in TCP's slow start. One that nobody reaches stays as it is,
  unless there is a long queue nevertheless.
"""

from dataclasses import dataclass
from math import inf, log2

HEADROOM = 0.06
"""Guessed: the share of the limit that waits; less than half of what the limit may be off."""

CLEAR = 2.5
"""Guessed: so many times the headroom that waits is a queue beyond doubt."""

TOP = 0.95
"""Guessed: requests that met so much of the most that any met tell of it."""

BELOW = (0.5, 0.9)
"""Guessed: the shares of the most that were met by those who show what contention costs."""

MAX_CONTENTION = 0.08
"""Guessed: contention takes no more of a request's time than this share."""

ENOUGH = 8
"""Guessed: so many of a window's answers tell something."""

CALM = 0.5
"""Guessed: a request tells of a calm server if it met no more than this share of the limit."""

REFERENCE_WEIGHT = 0.05
"""Guessed: the share of a longer calm TTFT in the reference."""

SMOOTHING = 0.4
"""Guessed: the share of a window in the limit."""

WINDOW_REQUESTS = 32
"""Guessed: a window has so many answers, and at least as many as the limit; see `ENOUGH`."""

START = 16
"""Guessed: where the search begins, within the bounds."""

LENGTH_CLASSES = 32
"""Input lengths are told apart by powers of two."""


@dataclass(frozen=True, slots=True)
class AdaptiveRule:
    """The bounds of the limit, and at which share of it a saturated backend comes back."""

    min_active: int
    max_active: int
    resume_share: float

    @property
    def start(self) -> int:
        """The first limit."""
        return max(self.min_active, min(START, self.max_active))


class AdaptiveLimit:
    """One backend's `limit`. A window of answers changes it, and then the next one begins."""

    __slots__ = (
        "_busy_s",
        "_changed_at_s",
        "_ended",
        "_is_starting",
        "_reference_s",
        "_rule",
        "_waits",
        "limit",
    )

    def __init__(self, rule: AdaptiveRule) -> None:
        self.limit = float(rule.start)
        self._rule = rule
        self._is_starting = True
        self._reference_s = [inf] * LENGTH_CLASSES
        self._changed_at_s = 0.0
        self._begin_window()

    def own_changes(self, own: int, now_s: float) -> None:
        """There were `own` requests of ours in flight until now."""
        self._busy_s += own * (now_s - self._changed_at_s)
        self._changed_at_s = now_s

    def ended(self) -> None:
        """One of our requests has left."""
        self._ended += 1

    def observed(self, load: float, ttft_s: float, input_tokens: float) -> None:
        """A request that met `load` had its first token after `ttft_s`."""
        self._waits.append((load + 1, ttft_s - self._reference(load, ttft_s, input_tokens)))
        if len(self._waits) < max(WINDOW_REQUESTS, self.limit) or not self._busy_s:
            return
        most = min(max(self._waits)[0], self.limit)
        top = sorted(wait_s for met, wait_s in self._waits if met >= TOP * most)
        if len(top) >= ENOUGH:
            below = sorted(wait_s for met, wait_s in self._waits if BELOW[0] <= met / most < BELOW[1])
            contended = below[len(below) // 2] * self._ended / self._busy_s if len(below) >= ENOUGH else 0.0
            share = top[len(top) // 3] * self._ended / self._busy_s - min(contended, MAX_CONTENTION)
            self._follow(max(0.0, min(share, 0.5)), int(most))
            self._begin_window()

    def _reference(self, load: float, ttft_s: float, input_tokens: float) -> float:
        """The TTFT of a calm server for this input length."""
        place = min(int(log2(1 + max(0.0, input_tokens))), LENGTH_CLASSES - 1)
        known_s = self._reference_s[place]
        if ttft_s < known_s:
            known_s = ttft_s
        elif load + 1 <= CALM * self.limit:
            known_s += REFERENCE_WEIGHT * (ttft_s - known_s)
        self._reference_s[place] = known_s
        return known_s

    def _follow(self, waiting_share: float, in_flight: int) -> None:
        """Of the requests in flight this share waited while they were nearly as many as `most`."""
        is_queue = waiting_share > CLEAR * HEADROOM
        if in_flight < int(self.limit) and waiting_share < 2 * CLEAR * HEADROOM:
            return
        if self._is_starting and not is_queue:
            target = 2 * self.limit
        else:
            least = (
                1.0 if waiting_share < HEADROOM / 2 else 0.5
            )  # whole requests: a small limit must grow too
            target = (1 - waiting_share) * in_flight + max(least, HEADROOM * in_flight)
            if not self._is_starting:
                target = self.limit + SMOOTHING * (target - self.limit)
            self._is_starting = False
        self.limit = max(self._rule.min_active, min(self._rule.max_active, target))

    def _begin_window(self) -> None:
        self._waits: list[tuple[float, float]] = []
        self._ended = 0
        self._busy_s = 0.0
