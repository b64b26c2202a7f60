"""Simulated servers, a picker and Envoys as gateways configure them, as processes on free ports."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.envoy_process import RunningEnvoy
from support.ports import free_port
from support.process_stack import LocalStack
from support.warm_process import WarmProcess

from benchmarks.gateway_envoy import gateway_config
from extproc.lab.local_stack.child_process import ChildProcess


def _nothing_else(*_: Any, **__: Any) -> None:
    raise AssertionError("a picker's stack starts its own Envoys")


@dataclass
class PickerStack(LocalStack):
    """`envoy` is the first gateway; `gateways` has all by their names, each with the fields of its filter.

    The picker speaks TLS with a certificate of its own, and has two seconds to drain.
    """

    gateways: dict[str, dict[str, Any]] = field(default_factory=lambda: {"original_dst": {}})
    options: tuple[str, ...] = ("--drain-timeout", "0s")
    envoys: dict[str, RunningEnvoy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.health_port = free_port()
        self.picker_ports = [self.grpc_port]
        self.stages = {
            "server": {"address": f"127.0.0.1:{self.grpc_port}", "drain_s": 1.0},
            "gateway": {"finish_s": 10.0},
            **self.stages,
        }
        command = [sys.executable, "-m", "extproc", "picker", "--config", str(self.config_path)]
        command += ["--grpc-health-port", str(self.health_port), *self.options]
        self.sidecar = WarmProcess("picker", command, self.directory / "picker.log")

    async def launch_envoy(self) -> None:
        """Start all gateways."""
        ports = list(self.backends.values())
        starting = [
            asyncio.to_thread(
                RunningEnvoy,
                self.directory / f"{name}-{number}",
                gateway_config(self.picker_ports, ports, **{"tls": True, **fields}),
            )
            for number, (name, fields) in enumerate(self.gateways.items(), start=len(self.envoys))
        ]
        self.envoys.update(zip(self.gateways, await asyncio.gather(*starting), strict=True))
        self.envoy = next(iter(self.envoys.values()))

    def may_start_sidecar(self) -> bool:
        """Always: no cluster is written for it."""
        return True

    async def start(self) -> None:
        """Start what is not started yet, and wait until the gateways have seen that the picker is ready."""
        await super().start()
        await self.until_gateways_see(1)

    async def until_gateways_see(self, pickers: int) -> None:
        """Wait until this many pickers are ready, as far as the gateways know."""
        for envoy in self.envoys.values():
            await asyncio.to_thread(envoy.until_stat, "cluster.picker.membership_healthy", pickers)

    async def stop(self) -> None:
        """End all processes that this started."""
        await super().stop()
        for envoy in self.envoys.values():
            await asyncio.to_thread(envoy.stop)

    def another_picker(self) -> ChildProcess:
        """One more picker for the same gateways, which is not started yet; before `start`."""
        port = free_port()
        self.picker_ports.append(port)
        ports = ("--grpc-port", port, "--grpc-health-port", free_port(), "--metrics-port", free_port())
        command = [*self.sidecar.command, *map(str, ports)]
        return WarmProcess("another picker", command, self.directory / f"picker-{port}.log")

    @asynccontextmanager
    async def through(self, gateway: str) -> AsyncIterator[None]:
        """Within the block requests go through this gateway."""
        before, self.envoy = self.envoy, self.envoys[gateway]
        try:
            yield
        finally:
            self.envoy = before


def picker_stack(directory: Path, **fields: Any) -> PickerStack:
    """A stack that is not started yet."""
    return PickerStack(directory, _nothing_else, **fields)
