"""Gauges that stand still while the server computes nothing: no evidence of load.

vLLM sets its gauges when its engine computes. When all its requests are cancelled at once it computes no
more, and says until its next request that it is full. So foreign load is believed for as long as the gauges
change, or the counters grow while nothing of ours is there that could move them. A server that computes one
huge prompt looks the same for seconds, and so does one whose GPU is dead: therefore a backend in doubt is
taken to be idle, but gets only one request at a time (`fleet.backend`), and none that has a request of ours
is doubted.
"""

from dataclasses import dataclass

from extproc.fleet.signals import Signals

DOUBTED_AFTER_S = 3.0
"""Guessed: many times the lag of gauges, and short beside the patience of refused clients."""


@dataclass(slots=True, eq=False)
class StandingGauges:
    """Since when the gauges of one backend say the same and nothing else shows foreign load."""

    _gauges: tuple[float, float] = (0.0, 0.0)
    _counters: tuple[float | None, ...] = ()
    _since_s: float = 0.0

    def scraped(self, signals: Signals, largest_own: int, now_s: float) -> bool:
        """Take in a scrape, and return whether the load that it shows is in doubt.

        `largest_own` is the largest number of own requests in flight during the last second.
        """
        gauges = (signals.running, signals.waiting)
        counters = (signals.prompt_tokens_total, signals.generation_tokens_total, signals.ended_total)
        has_moved = gauges != self._gauges or (largest_own == 0 and counters != self._counters)
        self._gauges, self._counters = gauges, counters
        if has_moved or not any(gauges):
            self._since_s = now_s
        return now_s - self._since_s >= DOUBTED_AFTER_S
