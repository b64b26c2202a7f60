"""The same requests at the same moments to several arms, by the load generator of `extproc profile`."""

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.overhead.processes import BenchmarkError
from benchmarks.ranking.arms import MODEL, Arm
from benchmarks.ranking.figures import Figures, measured
from extproc.lab.load.completion import Reply, open_session
from extproc.lab.load.measured import Place, Sent, is_refused
from extproc.lab.load.open_loop import OpenLoop
from extproc.lab.traffic.step_requests import StepRequests
from extproc.lab.traffic.workload import Schedule, Step
from extproc.outcomes.facts import Sample

_NO_LIMIT = 1 << 30


@dataclass(slots=True)
class ArmTarget:
    """One arm's Envoy as a target, and what became of the requests sent there."""

    url: str
    max_model_len: int | None
    model: str = MODEL
    requests_per_arrival: int = 1
    running: float = 0.0
    ttfts_s: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0

    def place(self) -> Sequence[Place]:
        """Wherever Envoy sends it."""
        return [_ArmPlace(self.url, self)]

    def end(self, reply: Reply) -> None:
        """A request has ended."""
        if is_refused(reply):
            self.refused += 1
        elif reply.failure is None and reply.ttft_s is not None:
            self.ttfts_s.append(reply.ttft_s)
        else:
            self.failed += 1


@dataclass(frozen=True, slots=True)
class _ArmPlace:
    url: str
    target: ArmTarget

    def end(self, sent: Sent, reply: Reply) -> Sample | None:
        self.target.end(reply)
        return None


@dataclass(frozen=True, slots=True)
class Measurement:
    """The arms' figures on one seed, and the latest that a request was sent after its time.

    `outside_s` is what the answered requests took on average outside of the engines: client, Envoy, sidecar,
    HTTP, and the machine's other work.
    """

    figures: Mapping[str, Figures]
    outside_s: Mapping[str, float]
    max_late_s: float


async def put_load(
    arms: Mapping[str, Arm],
    step: Step,
    new_requests: Callable[[], StepRequests],
    max_model_len: int,
    seed: int,
    slo_s: float,
) -> Measurement:
    """Send a step to the arms, by name, and wait for the answers; BenchmarkError where one fails."""
    targets = {name: ArmTarget(f"http://127.0.0.1:{arm.port}", max_model_len) for name, arm in arms.items()}
    late_s = await asyncio.gather(*(_send(each, step, new_requests(), seed) for each in targets.values()))
    return Measurement(
        {name: measured(each.ttfts_s, each.refused, each.failed, slo_s) for name, each in targets.items()},
        {name: statistics.mean(each.ttfts_s) - arms[name].engine_ttft_s() for name, each in targets.items()},
        max(late_s),
    )


async def _send(target: ArmTarget, step: Step, requests: StepRequests, seed: int) -> float:
    schedule = Schedule((step.rate,), step.duration_s, passes=1)
    async with open_session() as session:
        loop = OpenLoop(
            target,
            session,
            requests,
            schedule,
            _NO_LIMIT,
            lambda _: None,
            np.random.default_rng(seed),
            asyncio.Event(),
        )
        await loop.run(lambda _: None)
    if loop.ended_by is not None:
        raise BenchmarkError(f"{target.url}: {loop.ended_by}")
    return loop.figures.max_late_s
