"""Clients that come back: a request that was refused or lost is sent again, as the SDKs do by default.

The rule is that of OpenAI's and Anthropic's Python SDKs (`_base_client.py` of openai, read in November 2026):
two retries after a 503 or a failed connection; each after exactly `Retry-After`, where the answer has one,
otherwise after 0.5 s, 1 s and so on up to 8 s, less up to a quarter. A request whose response has begun is
not sent again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import msgspec
import numpy as np

from extproc.lab.evaluation.tally import Attempt, Tally
from extproc.lab.traffic.arrivals import Arrival

INITIAL_DELAY_S = 0.5
MAX_DELAY_S = 8.0
JITTER = 0.25
MAX_RETRY_AFTER_S = 120.0
"""All borrowed from OpenAI's SDK; the last was 60 in older versions of it."""


@dataclass(slots=True, eq=False)
class Clients:
    """The clients of all users: `open` users have neither an answer yet nor given up.

    `send` gives a request a number and sends it, `plan` has something done at a time. Requests that are sent
    again are remembered by their new numbers, until something has become of them.
    """

    _retries: int
    _rng: np.random.Generator
    _tally: Tally
    _plan: Callable[[float, Callable[[float], None]], None]
    _send: Callable[[int, Arrival, float], None]
    open: int = 0
    _again: dict[int, Attempt] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    def arrived(self, arrival: Arrival) -> None:
        """Send a user's request."""
        self.open += 1
        self._tally.arrived(arrival)
        self._send(next(self._numbers), arrival, arrival.at_s)

    def answered(self, number: int, arrival: Arrival, backend: int, ttft_s: float) -> None:
        """Count an answer; TTFT is that of this attempt."""
        self.open -= 1
        self._tally.ended(self._pop(number, arrival), backend, ttft_s)

    def refused(self, number: int, arrival: Arrival, retry_after_s: float | None, now_s: float) -> None:
        """Take a refusal."""
        self._lost(self._pop(number, arrival), self._tally.refused, retry_after_s, now_s)

    def failed(self, number: int, arrival: Arrival, has_begun: bool, now_s: float) -> None:
        """Take a failure of the backend."""
        attempt = self._pop(number, arrival)
        self._lost(attempt, self._tally.failed, None, now_s, is_final=has_begun)

    def _pop(self, number: int, arrival: Arrival) -> Attempt:
        return self._again.pop(number, None) or Attempt(arrival, arrival.at_s)

    def _lost(
        self,
        attempt: Attempt,
        give_up: Callable[[Attempt, float], None],
        retry_after_s: float | None,
        now_s: float,
        is_final: bool = False,
    ) -> None:
        if is_final or attempt.earlier >= self._retries:
            self.open -= 1
            give_up(attempt, now_s)
        else:
            self._plan(now_s + self._pause_s(attempt, retry_after_s), partial(self._send_again, attempt))

    def _pause_s(self, attempt: Attempt, retry_after_s: float | None) -> float:
        if retry_after_s is not None and 0 < retry_after_s <= MAX_RETRY_AFTER_S:
            return retry_after_s
        delay_s = min(INITIAL_DELAY_S * 2.0**attempt.earlier, MAX_DELAY_S)
        return delay_s * (1 - JITTER * float(self._rng.random()))

    def _send_again(self, before: Attempt, now_s: float) -> None:
        arrival = msgspec.structs.replace(before.arrival, at_s=now_s)
        number = next(self._numbers)
        self._again[number] = Attempt(arrival, before.first_at_s, before.earlier + 1)
        self._send(number, arrival, now_s)
