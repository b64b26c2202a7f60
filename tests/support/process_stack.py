"""Simulated backends, the sidecar and Envoy as processes on free ports, for tests of the whole stack."""

import asyncio
import io
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from support.client_load import Answer, chat
from support.envoy_process import MESSAGE_TIMEOUT_S
from support.patience import PATIENCE_S, until, until_state
from support.ports import free_port
from support.warm_process import WarmProcess

from extproc.fleet.endpoint import Endpoint
from extproc.lab.local_stack.child_process import ChildProcess

TRANSPORT = {"transport": os.environ["EXTPROC_TRANSPORT"]} if "EXTPROC_TRANSPORT" in os.environ else {}
"""`EXTPROC_TRANSPORT=grpcio make test`: another transport than the default one."""

StartSim = Callable[..., tuple[str, ChildProcess]]
"""Starts a simulated server with these options; its URL, when it answers, and its process."""


@dataclass
class LocalStack:
    """Sims, sidecar and Envoy; a coroutine, since Envoy's own start blocks.

    With `discovery` the sidecar has no list of backends, and finds `found_at_start` of them.
    """

    directory: Path
    start_envoy: Callable[..., Any]
    stages: dict[str, Any] = field(default_factory=dict)
    discovery: dict[str, Any] | None = None
    found_at_start: int = 0
    edit_envoy: Callable[[str], str] = lambda text: text
    message_timeout_s: int = MESSAGE_TIMEOUT_S
    sims: dict[str, ChildProcess] = field(default_factory=dict)
    backends: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.grpc_port, self.http_port = free_port(), free_port()
        self.config_path = self.directory / "extproc.yaml"
        self.cds_path = self.directory / "envoy-0" / "cds.json"
        self.samples_path = self.directory / "samples.db"
        self.model_path = self.directory / "model.json"
        command = [sys.executable, "-m", "extproc", "serve", "--config", str(self.config_path)]
        self.sidecar: ChildProcess = WarmProcess("sidecar", command, self.directory / "sidecar.log")

    def start_sim(self, name: str, *options: str, port: int | None = None) -> None:
        """Start a simulated backend; one that was started before starts again on its port."""
        self.backends[name] = port or self.backends.get(name) or free_port()
        command = [sys.executable, "-m", "extproc", "sim", "--port", str(self.backends[name]), *options]
        self.sims[name] = WarmProcess(name, command, self.directory / f"{name}.log")
        self.sims[name].start()

    async def change_speed(self, speed: float, *names: str) -> None:
        """Make simulated backends machines of another speed from now on, all of them if none is named."""
        for name in names or self.sims:
            url = f"http://127.0.0.1:{self.backends[name]}/sim/speed"
            async with self.session.post(url, json={"speed": speed}) as response:
                assert response.status == 200

    def write_config(self, names: Sequence[str] | None = None) -> None:
        """Write extproc.yaml for the named backends, all by default."""
        backends = [
            {"name": name, "url": f"http://127.0.0.1:{self.backends[name]}"}
            for name in names or self.backends
        ]
        document = {
            "server": {"address": f"127.0.0.1:{self.grpc_port}", "drain_s": 2.0, **TRANSPORT},
            "http": {"address": f"127.0.0.1:{self.http_port}"},
            "envoy": {"cds_path": str(self.cds_path)},
            "model": {"path": str(self.model_path)},
            "samples": {"path": str(self.samples_path)},
            **({"backends": backends} if self.discovery is None else {"discovery": self.discovery}),
            **self.stages,
        }
        self.config_path.write_text(yaml.safe_dump(document))

    async def start(self) -> None:
        """Start what is not started yet, and wait until every backend is routable and its models known."""
        self.write_config()
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        envoy = asyncio.create_task(self.launch_envoy())
        await until(lambda: self.may_start_sidecar() or envoy.done())
        self.sidecar.start()
        await envoy
        await self.until_routable(len(self._listed()) or self.found_at_start)

    async def launch_envoy(self) -> None:
        """Start an Envoy, the first one or its successor, and wait until it is ready."""
        addresses = [Endpoint(name, "127.0.0.1", port) for name, port in self._listed().items()]
        grpc = f"127.0.0.1:{self.grpc_port}"
        options = {"edit": self.edit_envoy, "message_timeout_s": self.message_timeout_s}
        self.envoy = await asyncio.to_thread(self.start_envoy, grpc, addresses, **options)

    def may_start_sidecar(self) -> bool:
        """Whether it would find the clusters that Envoy has: with these a backend is used at once."""
        return self.cds_path.exists()

    def _listed(self) -> dict[str, int]:
        return self.backends if self.discovery is None else {}

    async def stop(self) -> None:
        """End all processes that this started; Envoy is the fixture's."""
        await self.session.close()
        await asyncio.to_thread(self.sidecar.stop, 5.0)
        for sim in self.sims.values():
            await asyncio.to_thread(sim.stop, 0.0)

    async def state(self) -> dict[str, Any]:
        """`/v1/state`."""
        async with self.session.get(f"http://127.0.0.1:{self.http_port}/v1/state") as response:
            result: dict[str, Any] = await response.json()
            return result

    async def metrics_page(self) -> str:
        """`/metrics`."""
        async with self.session.get(f"http://127.0.0.1:{self.http_port}/metrics") as response:
            return await response.text()

    async def metric(self, name: str) -> float:
        """A metric without labels, from `/metrics`."""
        found = re.search(rf"^{name} (\S+)$", await self.metrics_page(), re.MULTILINE)
        assert found is not None, f"no {name}"
        return float(found[1])

    async def until_page(self, is_so: Callable[[str], object]) -> str:
        """Wait until `/metrics` is as wanted, and return it."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so(page := await self.metrics_page()):
                await asyncio.sleep(0.02)
        return page

    async def until_metric(self, name: str, value: float) -> None:
        """Wait until a metric without labels has at least that value."""
        series = re.compile(rf"^{name} (\S+)$", re.MULTILINE)
        await self.until_page(lambda page: sum(map(float, series.findall(page))) >= value)

    async def until_outcomes(self, count: int) -> None:
        """Wait until Envoy has logged this many placed requests, which it does when they have ended."""
        series = re.compile(r"^extproc_outcomes_total\{.*\} (\S+)$", re.MULTILINE)
        await self.until_page(lambda page: sum(map(float, series.findall(page))) >= count)

    async def until(
        self, is_so: Callable[[dict[str, Any]], object], patience_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Wait until the state is as wanted, and return it."""
        return await until_state(self.state, is_so, self.sidecar.log_tail, patience_s)

    async def until_routable(self, count: int) -> None:
        """Wait until that many backends may be chosen, and have said what they serve."""
        await self.until(
            lambda state: sum(b["is_routable"] and bool(b["models"]) for b in state["backends"]) == count
        )

    async def until_idle(self, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until no slot is held."""
        return await self.until(lambda state: all(b["own"] == 0 for b in state["backends"]), patience_s)

    async def ask(
        self,
        body: Any = None,
        *,
        path: str = "/v1/chat/completions",
        headers: Mapping[str, str] | None = None,
        data: bytes | io.BytesIO | None = None,
    ) -> Answer:
        """One request through Envoy, to its end."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        payload = data if data is not None else json.dumps(chat() if body is None else body).encode()
        sent = {"content-type": "application/json", **(headers or {})}
        async with self.session.post(self.envoy.url + path, data=payload, headers=sent) as response:
            first = await response.content.readany()
            ttft_s = loop.time() - started_s
            return Answer(response.status, response.headers, first + await response.read(), ttft_s)

    async def ask_many(self, count: int, concurrency: int, body: Any = None) -> list[Answer]:
        """`count` requests, at most `concurrency` at once."""
        places = asyncio.Semaphore(concurrency)

        async def one() -> Answer:
            async with places:
                return await self.ask(body)

        return list(await asyncio.gather(*(one() for _ in range(count))))


@dataclass(frozen=True, slots=True)
class SharedStack:
    """A stack that is running, and what runs a coroutine on the event loop that it belongs to."""

    stack: LocalStack
    run: Callable[[Coroutine[Any, Any, None]], None]


@asynccontextmanager
async def running(stack: LocalStack) -> AsyncIterator[LocalStack]:
    """Start a stack, and end it however the test ends."""
    try:
        await stack.start()
        yield stack
    finally:
        await stack.stop()
