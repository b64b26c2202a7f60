"""The traffic of the last quarter of an hour, in steps of five seconds, and the counters of a minute ago."""

from collections import deque

from msgspec.structs import replace

from extproc.outcomes.traffic_window import TrafficWindow
from extproc.routing.counter_reading import CounterReading, between

STEP_S = 5.0
STEPS = 180
STEPS_OF_A_MINUTE = 12
"""Guessed: as long as an incident takes to be understood, as fine as a plot as wide as a phone can show."""


class TrafficHistory:
    """Keeps the newest `STEPS` steps; older ones are dropped.

    A step's counts are its own. Its TTFT is that of the minute that ends with it: in light traffic too few
    streams end within five seconds.
    """

    def __init__(self, started_s: float) -> None:
        self.start = CounterReading(started_s)
        self._readings = deque([self.start], maxlen=STEPS_OF_A_MINUTE + 1)
        self._steps: deque[TrafficWindow] = deque(maxlen=STEPS)

    @property
    def steps(self) -> list[TrafficWindow]:
        """The steps, the oldest first."""
        return list(self._steps)

    @property
    def ended_s(self) -> float:
        """When the newest step ended."""
        return self._readings[-1].at_s

    @property
    def minute_ago(self) -> CounterReading:
        """The counters of a minute ago, at most one step older; those of the start in the first minute."""
        return self._readings[0]

    def end_step(self, reading: CounterReading) -> None:
        """Add the step from the reading before to this one."""
        step = between(self._readings[-1], reading)
        self._readings.append(reading)
        minute = between(self._readings[0], reading)
        self._steps.append(
            replace(
                step,
                ttft_p50_s=minute.ttft_p50_s,
                ttft_p99_s=minute.ttft_p99_s,
                client_ttft_p50_s=minute.client_ttft_p50_s,
                client_ttft_p99_s=minute.client_ttft_p99_s,
            )
        )
