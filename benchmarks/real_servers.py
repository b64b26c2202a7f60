"""`python -m benchmarks.real_servers URL URL`: the sidecar before servers that are real.

Three things, each by its own requests, whose prompts share nothing:

- at `--load` of what the servers can answer, the sidecar and Envoy's LEAST_REQUEST in turns, with the same
  requests at the same moments;
- at three times as much, with clients that come back twice, after `Retry-After`: what is promised
  (`guard.max_predicted_ttft_s`) and what is answered within 2 s;
- a minute later, a light load on the empty servers, beside a sidecar that has just started.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import typer
import uvloop

from benchmarks.overhead.processes import Processes
from benchmarks.ranking.arms import LAYERED, LEAST_REQUEST, Front
from benchmarks.ranking.figures import Figures, measured
from extproc.config.guard_stage import GuardConfig
from extproc.fleet.endpoint import Endpoint
from extproc.lab.load.completion import PATH, Reply, ask, completion_body, open_session
from extproc.lab.load.measured import is_refused
from extproc.lab.traffic.arrivals import Arrival
from extproc.lab.traffic.step_requests import DrawnRequests
from extproc.lab.traffic.workload import Lognormal, Step, Workload

CONTEXT = 4096
IN_TIME_S = 2.0
RETRIES = 2
PAUSE_S = 60.0
CLOSED_LOOP = 32
CLOSED_LOOP_S = 20.0
OVERLOAD = 3.0


@dataclass(slots=True)
class Seen:
    """The outcomes of the requests of one load; `ttfts_s` are those of attempts that were let in."""

    users: int = 0
    attempts: int = 0
    refused: int = 0
    failed: int = 0
    ttfts_s: list[float] = field(default_factory=list)
    ended_after_s: float = 0.0

    def line(self, name: str) -> str:
        """The figures."""
        figures = self.figures()
        return (
            f"{name:<28} {self.users:5} users, {self.attempts:5} attempts, {self.refused:5} refused, "
            f"{self.failed:3} failed; TTFT p50 {figures.p50_s:.3f} s, p99 {figures.p99_s:.2f} s; "
            f"{figures.goodput:.1%} of users in time"
        )

    def figures(self) -> Figures:
        """Those of the users: refused are the ones whose last attempt was."""
        given_up = self.users - len(self.ttfts_s) - self.failed
        return measured(self.ttfts_s, given_up, self.failed, IN_TIME_S)


@dataclass(frozen=True, slots=True)
class Client:
    """Sends requests for one model to one address."""

    url: str
    model: str

    async def put(self, requests: Sequence[Arrival], retries: int) -> Seen:
        """Send each at its time, and wait until all have ended."""
        seen, began_s = Seen(), time.monotonic()
        rng = np.random.default_rng(1)
        async with open_session() as session, asyncio.TaskGroup() as tasks:
            for arrival in requests:
                body = completion_body(self.model, arrival.prompt_tokens, arrival.output_tokens, rng)
                await asyncio.sleep(max(0.0, began_s + arrival.at_s - time.monotonic()))
                tasks.create_task(self._user(session, body, retries, seen))
        seen.ended_after_s = time.monotonic() - began_s
        return seen

    async def _user(self, session: aiohttp.ClientSession, body: bytes, retries: int, seen: Seen) -> None:
        seen.users += 1
        for _ in range(1 + retries):
            reply = Reply()
            await ask(session, self.url + PATH, body, reply)
            seen.attempts += 1
            if not is_refused(reply):
                break
            seen.refused += 1
            await asyncio.sleep(float(reply.headers["retry-after"]))
        if reply.failure is None and reply.ttft_s is not None:
            seen.ttfts_s.append(reply.ttft_s)
        elif not is_refused(reply):
            seen.failed += 1

    async def capacity_per_s(self, workload: Workload) -> float:
        """What is answered a second where `CLOSED_LOOP` clients ask without a pause."""
        ends_s, rng, answered = time.monotonic() + CLOSED_LOOP_S, np.random.default_rng(0), 0
        prompts, outputs = workload.draw(rng, 4096, CONTEXT)
        left = iter(zip(prompts.tolist(), outputs.tolist(), strict=True))

        async def one() -> None:
            nonlocal answered
            while time.monotonic() < ends_s:
                prompt_tokens, output_tokens = next(left)
                body, reply = completion_body(self.model, prompt_tokens, output_tokens, rng), Reply()
                await ask(session, self.url + PATH, body, reply)
                answered += reply.failure is None and time.monotonic() < ends_s

        async with open_session() as session:
            await asyncio.gather(*(one() for _ in range(CLOSED_LOOP)))
        return answered / CLOSED_LOOP_S


def requests_at(workload: Workload, rate: float, duration_s: float, seed: int) -> list[Arrival]:
    """Requests of a Poisson process."""
    step = Step(1, rate, duration_s)
    return list(DrawnRequests(workload).of_step(step, 1, CONTEXT, np.random.default_rng(seed)))


def main(
    urls: Annotated[list[str], typer.Argument(help="of the servers, http://HOST:PORT")],
    *,
    model: Annotated[str, typer.Option(help="which all of them serve")] = "tiny",
    load: Annotated[float, typer.Option(help="share of what they can answer, of the comparison")] = 0.7,
    duration_s: Annotated[float, typer.Option(min=1, help="of each load")] = 120.0,
    rounds: Annotated[int, typer.Option(min=1, help="of the comparison")] = 1,
) -> None:
    """Compare the sidecar with LEAST_REQUEST before real servers, then overload them."""
    backends = [
        Endpoint(f"vllm-{number}", parts.hostname or "", parts.port or 80)
        for number, parts in enumerate(map(urlsplit, urls), start=1)
    ]
    workload = Workload(Lognormal(200, 0.8), Lognormal(32, 0.6))
    with tempfile.TemporaryDirectory(prefix="extproc-real-") as name, Processes(Path(name)) as processes:

        def client(arm: str, policy: str) -> Client:
            front = Front(processes, Path(name) / arm, model).start(policy, backends)
            return Client(f"http://127.0.0.1:{front.port}", model)

        ours, theirs = client("sidecar", LAYERED), client("pool", LEAST_REQUEST)
        capacity = uvloop.run(theirs.capacity_per_s(workload))
        print(f"{capacity:.1f} requests a second are answered at most")
        for round_number in range(rounds):
            requests = requests_at(workload, load * capacity, duration_s, 301 + round_number)
            for arm, each in (("sidecar", ours), ("LEAST_REQUEST", theirs)):
                print(uvloop.run(each.put(requests, 0)).line(f"{arm} at {load:g}"), flush=True)
        overload(ours, requests_at(workload, OVERLOAD * capacity, duration_s, 401))
        time.sleep(PAUSE_S)
        light = requests_at(workload, load / 2 * capacity, 30.0, 501)
        print(uvloop.run(ours.put(light, 0)).line("a minute later, light"), flush=True)
        print(uvloop.run(client("fresh", LAYERED).put(light, 0)).line("the same, fresh sidecar"))


def overload(client: Client, requests: Sequence[Arrival]) -> None:
    """Put the load on, and print what was promised and kept."""
    seen = uvloop.run(client.put(requests, RETRIES))
    promised_s = GuardConfig().max_predicted_ttft_s
    kept = statistics.mean(ttft_s <= promised_s for ttft_s in seen.ttfts_s)
    in_time = seen.figures().goodput * seen.users
    print(seen.line(f"sidecar at {OVERLOAD:g}"))
    print(
        f"  first tokens within the promised {promised_s:g} s: {kept:.1%} of those let in; "
        f"answered a second: {len(seen.ttfts_s) / seen.ended_after_s:.2f}, "
        f"within {IN_TIME_S:g} s: {in_time / seen.ended_after_s:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(main)
