"""What `/metrics` says of an engine: how it was some time ago.

A real vLLM's gauges lag behind by 0.3 to 0.5 s, so a router decides on what was, not on what is. Changes are
noted as they happen, and kept until something newer is old enough to be seen.
"""

from collections import deque
from dataclasses import dataclass, replace

from extproc.lab.engine.engine import Engine
from extproc.lab.engine.results import EngineCounters


@dataclass(frozen=True, slots=True)
class EngineReading:
    """An engine's gauges and counters at one moment."""

    running: int
    waiting: int
    kv_cache_fraction: float
    counters: EngineCounters


class LateGauges:
    """One engine's readings; `changed` has to be called whenever it has changed."""

    def __init__(self, engine: Engine, delay_s: float) -> None:
        self._engine = engine
        self._delay_s = delay_s
        self._readings = deque([(-delay_s, self._read())])

    def changed(self, now_s: float) -> None:
        """The engine is another one from now on."""
        self._readings.append((now_s, self._read()))
        self._forget(now_s)

    def seen(self, now_s: float) -> EngineReading:
        """How it was `delay_s` ago."""
        self._forget(now_s)
        return self._readings[0][1]

    def _forget(self, now_s: float) -> None:
        readings = self._readings
        while len(readings) > 1 and readings[1][0] <= now_s - self._delay_s:
            readings.popleft()

    def _read(self) -> EngineReading:
        engine, counters = self._engine, self._engine.counters
        copied = replace(counters, finished=dict(counters.finished))
        return EngineReading(engine.running, engine.waiting, engine.kv_cache_fraction, copied)
