"""The measurements: alternating rounds of load on each arm, and what each one cost per request or per chunk.

A process that scrapes is never idle, so its CPU time in a window is what the requests cost and what it does
anyway. The second part is its *background*, measured while one silent stream is open on every backend: the
sidecar then scrapes as often as it ever does. Under load it is taken off, less the scrapes not made.
"""

import asyncio
from dataclasses import dataclass

import uvloop

from benchmarks.overhead.arms import Arm, Reading
from benchmarks.overhead.load import LoadResult, run_load
from benchmarks.overhead.processes import BenchmarkError, Processes, machine_busy_s

_WARM_UP_S = 0.3
_SETTLE_S = 0.5


@dataclass(frozen=True, slots=True)
class Background:
    """What a server costs without requests: at rest, and busy, with a silent stream open on every backend."""

    idle_cpu_per_s: float
    idle_scrapes_per_s: float
    busy_cpu_per_s: float
    busy_scrapes_per_s: float

    @property
    def scrape_cpu_s(self) -> float:
        """CPU time of one scrape; 0 where busy or not makes no difference to scraping."""
        more = self.busy_scrapes_per_s - self.idle_scrapes_per_s
        return (self.busy_cpu_per_s - self.idle_cpu_per_s) / more if more > 1 else 0.0

    def cpu_s(self, duration_s: float, scrapes: int) -> float:
        """Its part of a window's CPU time: the busy one, less the scrapes that were not made."""
        missing = self.busy_scrapes_per_s * duration_s - scrapes
        return self.busy_cpu_per_s * duration_s - self.scrape_cpu_s * missing


@dataclass(frozen=True, slots=True)
class Round:
    """One window of load on one arm; the CPU times are per request, the server's without its background.

    `unplaced` counts the requests that the processor was not asked about, or did not answer; `others_cores`
    is what the rest of the machine was busy with, its hypervisor's other guests included.
    """

    arm: str
    connections: int
    chunks: int
    requests: int
    errors: int
    unplaced: int
    requests_per_s: float
    latency_p50_s: float
    latency_p99_s: float
    server_cpu_s: float
    server_gross_cpu_s: float
    envoy_cpu_s: float
    client_cpu_s: float
    scrapes_per_s: float
    others_cores: float


class Laboratory:
    """Runs load on arms and reads what it cost; `backgrounds` has an entry for each arm with a server."""

    def __init__(self, processes: Processes, backends: int) -> None:
        self._processes, self._backends = processes, backends
        self._backgrounds: dict[str, Background] = {}

    def background(self, arm: Arm, duration_s: float) -> Background:
        """Measure what the arm's server costs without requests, and remember it."""
        rates = []
        for before, after in uvloop.run(_watch(arm, self._backends, duration_s)):
            seconds, scrapes = after.at_s - before.at_s, arm.scrapes_between(before, after)
            rates += [(after.server_cpu_s - before.server_cpu_s) / seconds, scrapes / seconds]
        found = Background(*rates)
        self._backgrounds[arm.name] = found
        return found

    def round(
        self, arm: Arm, connections: int, duration_s: float, chunks: int = 0, pause_ms: int = 0
    ) -> Round:
        """Warm up, then load the arm for `duration_s`. Raises BenchmarkError where nothing was answered."""
        uvloop.run(run_load(arm.port, connections, _WARM_UP_S))
        before, others_before_s = arm.read(), self._others_s()
        result = uvloop.run(run_load(arm.port, connections, duration_s, chunks, pause_ms))
        others_s = self._others_s() - others_before_s
        after = arm.read()
        if not result.requests:
            raise BenchmarkError(f"no right answer through {arm.name}")
        return self._round((arm, connections, chunks), before, after, result, others_s)

    def _others_s(self) -> float:
        return machine_busy_s() - self._processes.cpu_s()

    def _round(
        self, what: tuple[Arm, int, int], before: Reading, after: Reading, result: LoadResult, others_s: float
    ) -> Round:
        arm, connections, chunks = what
        seconds, scrapes = after.at_s - before.at_s, arm.scrapes_between(before, after)
        gross_s = after.server_cpu_s - before.server_cpu_s
        background = self._backgrounds.get(arm.name)
        net_s = gross_s - (background.cpu_s(seconds, scrapes) if background else 0.0)
        missed = result.requests + result.errors - (after.placed - before.placed) if arm.server else 0
        return Round(
            arm=arm.name,
            connections=connections,
            chunks=chunks,
            requests=result.requests,
            errors=result.errors,
            unplaced=after.unplaced - before.unplaced + abs(missed),
            requests_per_s=result.requests_per_s,
            latency_p50_s=result.latency_s(0.5),
            latency_p99_s=result.latency_s(0.99),
            server_cpu_s=net_s / result.requests,
            server_gross_cpu_s=gross_s / result.requests,
            envoy_cpu_s=(after.envoy_cpu_s - before.envoy_cpu_s) / result.requests,
            client_cpu_s=result.client_cpu_s / result.requests,
            scrapes_per_s=scrapes / seconds,
            others_cores=max(0.0, others_s / result.duration_s),
        )


async def _watch(arm: Arm, backends: int, duration_s: float) -> list[tuple[Reading, Reading]]:
    """Readings around a time without requests, and around one with a silent stream on every backend."""
    await asyncio.sleep(2 * _SETTLE_S)
    idle = arm.read()
    await asyncio.sleep(duration_s)
    idle_end = arm.read()
    pause_ms = round((duration_s + 3 * _SETTLE_S) * 1e3)
    streams = asyncio.create_task(run_load(arm.port, backends, 0.0, chunks=1, pause_ms=pause_ms))
    await asyncio.sleep(_SETTLE_S)
    held = arm.read()
    await asyncio.sleep(duration_s)
    held_end = arm.read()
    if (await streams).errors:
        raise BenchmarkError(f"streams through {arm.name} were not answered right")
    return [(idle, idle_end), (held, held_end)]
