"""The local stack: Envoy, a sidecar, backends, a trainer, on the loopback interface, run as one.

Backends start first, then the sidecar, which writes Envoy's cluster file, then Envoy. They end the other
way round: first no requests are sent any more, then none are placed, then none are served. The
sidecar is started again whenever it ends, as an orchestrator would; Envoy fails open in between. So is the
trainer, if there is one: it reads what the sidecar has recorded, and no request waits for it.
"""

import shlex
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from extproc.adapters.http.fleet_state import FleetState, fetch_state, is_answering
from extproc.adapters.stop_signals import StopSignals
from extproc.config.given_sources import listed, numbered_servers
from extproc.config.listen_options import HOST
from extproc.config.stages import Config, load_config
from extproc.errors import StackError
from extproc.fleet.endpoint import host_and_port
from extproc.lab.local_stack.child_process import EXTPROC, ChildProcess, ChildRestart, typed_command
from extproc.lab.local_stack.stack_files import (
    PortUse,
    check_ports,
    find_envoy,
    run_directory,
    with_fields,
    write_envoy_config,
    write_sidecar_config,
)
from extproc.lab.local_stack.stack_options import StackOptions
from extproc.lab.local_stack.stack_view import StackPart, curl_line, stack_view, unready_backends

SIM_MODEL = "sim-model"
# Unequal, and small enough that little traffic reaches every zone. Measured through Envoy with 64 tokens a
# request: the median TTFT is below 0.1 s at a concurrency of 30, 1.3 s at 60 and 3.9 s at 150.
SIM_SPEEDS = (1.0, 0.6, 0.35)
SIM_OPTIONS = (
    *("--model", SIM_MODEL, "--profile", "a100-8b"),
    *("--max-num-seqs", "8", "--kv-cache-tokens", "16384"),
)
ENVOY_WORKERS = 2

PATIENCE_S = 30.0
POLL_S = 0.1
GRACE_S = 2.0  # more than Envoy and a simulated backend need; the sidecar may drain for longer


def run_stack(options: StackOptions, console: Console) -> None:
    """Run it until SIGINT, SIGTERM or SIGHUP. Raises ExtprocError where it cannot start, or Envoy ends."""
    with StopSignals() as signals, run_directory(options.run_dir) as directory:
        stack = Stack(options, directory, console, signals)
        try:
            stack.start()
            stack.supervise()
        finally:
            stack.stop()


class Stack:
    """The processes of one stack, in `directory`."""

    def __init__(
        self, options: StackOptions, directory: Path, console: Console, signals: StopSignals
    ) -> None:
        self._options, self._directory, self._console, self._signals = options, directory, console, signals
        self._sidecar_url = f"http://{HOST}:{options.http_port}"
        self._config = self._make_config()
        self._sims = (
            []
            if numbered_servers(options.backends)
            else [self._sim(index) for index in range(len(SIM_SPEEDS))]
        )
        self._sidecar = self._own_command("sidecar", "serve")
        self._trainers = [self._own_command("trainer", "trainer")] if options.learn else []
        self._envoy = self._child(
            "envoy",
            *(find_envoy(), "-c", str(directory / "envoy.yaml"), "--concurrency", str(ENVOY_WORKERS)),
            *("--disable-hot-restart", "--log-level", "warning"),
        )

    def start(self) -> None:
        """Start everything and wait until all of it is ready, then say what runs where."""
        check_ports(self._port_uses())
        write_sidecar_config(self._directory / "extproc.yaml", self._config)
        write_envoy_config(
            self._directory / "envoy.yaml", self._config, self._options.port, self._options.admin_port
        )
        what = f"{len(self._sims)} simulated backends, " if self._sims else ""
        self._say(f"Starting {what}a sidecar and Envoy ...")
        for child in (*self._sims, self._sidecar):
            child.start()
        self._wait_until(lambda: None if is_answering(f"{self._sidecar_url}/readyz") else "the sidecar")
        if self._signals.is_requested:
            return
        self._envoy.start()
        admin_url = f"http://{HOST}:{self._options.admin_port}"
        self._wait_until(lambda: None if is_answering(f"{admin_url}/ready") else "Envoy")
        self._wait_until(self._unready_backends)
        for trainer in self._trainers:
            trainer.start()
        if not self._signals.is_requested:
            self._introduce(fetch_state(self._sidecar_url))

    def supervise(self) -> None:
        """Restart our own processes, and report backends that end, until a stop; raises if Envoy ends."""
        restarts = [
            (child, meanwhile, ChildRestart(child, time.monotonic()))
            for child, meanwhile in (
                (self._sidecar, "Envoy places requests meanwhile."),
                *((trainer, "The model in use stays.") for trainer in self._trainers),
            )
        ]
        alive = list(self._sims)
        while not self._signals.is_requested:
            self._demand_alive(self._envoy)
            for child, meanwhile, restart in restarts:
                if news := restart.advance(time.monotonic()):
                    self._say(f"The {child.name} {news}. {meanwhile} See {child.log_path}")
            for sim in [sim for sim in alive if sim.ending()]:
                alive.remove(sim)
                self._say(f"{sim.name} {sim.ending()}. To bring it back: {shlex.join(sim.command)}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End all processes, clients' side first; those that never started as well."""
        self._envoy.stop(GRACE_S)
        for trainer in self._trainers:
            trainer.stop(GRACE_S)
        self._sidecar.stop(GRACE_S + self._config.server.drain_s)
        for sim in self._sims:
            sim.stop(GRACE_S)

    def _make_config(self) -> Config:
        options = self._options
        policy = load_config(options.policy_path, listed(self._backends()))
        own_model = self._directory / "model.json" if options.learn else None
        fields: dict[str, dict[str, str | None]] = {
            "server": {"address": options.grpc_address, "tls": None},  # this Envoy speaks plain text
            "http": {"address": f"{HOST}:{options.http_port}"},
            "envoy": {"cds_path": str(self._directory / "cds.json")},
            "model": {"path": str(options.model_path or own_model or policy.model.path)},
            "samples": {
                "path": str(options.samples_path or policy.samples.path or self._directory / "samples.sqlite")
            },
        }
        return with_fields(policy, fields)

    def _backends(self) -> list[tuple[str, str]]:
        """Return names and URLs."""
        if named := numbered_servers(self._options.backends):
            return named
        ports = [self._options.sim_port + index for index in range(len(SIM_SPEEDS))]
        return [(f"sim-{number}", f"http://{HOST}:{port}") for number, port in enumerate(ports, start=1)]

    def _port_uses(self) -> list[PortUse]:
        options = self._options
        uses = [
            PortUse(HOST, options.port, "Envoy, for clients", "--port"),
            PortUse(HOST, options.admin_port, "Envoy's admin interface", "--admin-port"),
            PortUse(HOST, options.http_port, "the sidecar's HTTP", "--http-port"),
        ]
        if not options.grpc_address.startswith("unix:"):
            uses.append(PortUse(*host_and_port(options.grpc_address), "the sidecar's gRPC", "--grpc"))
        uses += [
            PortUse(HOST, options.sim_port + index, sim.name, "--sim-port")
            for index, sim in enumerate(self._sims)
        ]
        return uses

    def _sim(self, index: int) -> ChildProcess:
        port, speed = self._options.sim_port + index, SIM_SPEEDS[index]
        return self._child(
            f"sim-{index + 1}",
            *(*EXTPROC, "sim", "--port", str(port)),
            *(*SIM_OPTIONS, "--speed", str(speed)),
        )

    def _own_command(self, name: str, command: str) -> ChildProcess:
        config = str(self._directory / "extproc.yaml")
        return self._child(name, *EXTPROC, command, "--config", config)

    def _child(self, name: str, *command: str) -> ChildProcess:
        return ChildProcess(name, command, self._directory / f"{name}.log")

    def _wait_until(self, missing: Callable[[], str | None]) -> None:
        """Return when nothing is missing, or a stop is requested; StackError if it takes too long."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not self._signals.is_requested and (what := missing()):
            for child in (*self._sims, self._sidecar, self._envoy):
                self._demand_alive(child)
            if time.monotonic() > deadline_s:
                raise StackError(f"not ready after {PATIENCE_S:.0f} s: {what}")
            time.sleep(POLL_S)

    def _demand_alive(self, child: ChildProcess) -> None:
        if ending := child.ending():
            raise StackError(f"{child.name} {ending}. The end of its log:\n{child.log_tail()}")

    def _unready_backends(self) -> str | None:
        try:
            return unready_backends(fetch_state(self._sidecar_url))
        except StackError as error:
            return str(error)

    def _introduce(self, state: FleetState) -> None:
        options = self._options
        envoy, sidecar = self._envoy.pid, self._sidecar.pid
        parts = [
            StackPart("Envoy", f"http://{HOST}:{options.port}", "OpenAI requests", envoy),
            StackPart("Envoy's admin", f"http://{HOST}:{options.admin_port}", "/stats, /clusters", envoy),
            StackPart("sidecar", self._sidecar_url, "live page, /v1/state, /metrics", sidecar),
            StackPart("its gRPC", options.grpc_address, "ext_proc and access log", sidecar),
        ]
        parts += [
            StackPart("trainer", str(self._config.model.path), "the model file that it makes", trainer.pid)
            for trainer in self._trainers
        ]
        if self._sims:
            parts += [
                StackPart(name, url, f"simulated vLLM, speed {speed:g}", sim.pid)
                for (name, url), speed, sim in zip(self._backends(), SIM_SPEEDS, self._sims, strict=True)
            ]
        else:
            parts += [StackPart(name, url, "backend", None) for name, url in self._backends()]
        self._console.print()
        self._console.print(stack_view(parts, str(self._directory), options.run_dir is None))
        models = {model for backend in state.backends for model in backend.models or ()}
        self._say(f"\nTry it:\n\n  {curl_line(options.port, models)}\n")
        watch = f"{typed_command()} status --watch"
        if options.http_port != StackOptions().http_port:
            watch += f" --sidecar {self._sidecar_url}"
        self._say(f"Watch it: {watch}\nCtrl-C stops everything.")

    def _say(self, text: str) -> None:
        """Print as it is: no markup, and no line broken that is to be copied."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
