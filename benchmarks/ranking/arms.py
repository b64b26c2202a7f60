"""What is compared in real time: each policy behind an Envoy of its own, with a fleet of its own.

All arms have the shipped envoy.yaml. Those without the sidecar have neither the ext_proc filter nor the
access log, so that every request goes to the one pool of all backends, under LEAST_REQUEST as shipped, at
Envoy's defaults, or under ROUND_ROBIN. The backends are `extproc sim`: the evaluator's engines in real time,
whose gauges lag as the evaluator has it. Nothing is left of one run in the next.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from benchmarks.evaluator import MODEL_FILE
from benchmarks.overhead.arms import start_envoy, without_processor
from benchmarks.overhead.processes import Processes, accepts, fetch, free_ports
from extproc.adapters.envoy.bootstrap import bootstrap, shipped_bootstrap
from extproc.adapters.envoy.cluster_document import POOL_CLUSTER, cds_document
from extproc.fleet.endpoint import Endpoint
from extproc.lab.engine.engine_profile import PROFILES
from extproc.lab.evaluation.simulated_server import ServerSpec

LAYERED, LEAST_REQUEST, ROUND_ROBIN = ARMS = ("layered", "least-request", "round-robin")
"""The evaluator's names of the policies."""
MODEL = "sim"

_ENGINE_TTFT = re.compile(r"^vllm:time_to_first_token_seconds_(sum|count)\{.*\} (\S+)$", re.MULTILINE)
_WORKERS = 1
"""Threads of an Envoy: with more, each has a round robin of its own."""
_UNUSED_ADDRESS = "127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class Arm:
    """A fleet and the Envoy before it; clients go to `port`."""

    port: int
    backend_ports: Sequence[int]

    def engine_ttft_s(self) -> float:
        """The mean time that requests have spent in the engines until their first token."""
        totals = {"sum": 0.0, "count": 0.0}
        for port in self.backend_ports:
            for name, value in _ENGINE_TTFT.findall(fetch(port, "/metrics") or ""):
                totals[name] += float(value)
        return totals["sum"] / totals["count"]


class Arms:
    """Starts arms on one fleet."""

    def __init__(
        self,
        processes: Processes,
        directory: Path,
        servers: Sequence[ServerSpec],
        gauge_delay_s: float,
        max_model_len: int,
    ) -> None:
        self._processes, self._directory = processes, directory
        self._servers, self._gauge_delay_s = servers, gauge_delay_s
        self._max_model_len = max_model_len

    def start(self, policy: str) -> Arm:
        """A fleet and the Envoy before it, when they answer."""
        return Front(self._processes, self._directory / policy).start(policy, self._start_backends(policy))

    def _start_backends(self, policy: str) -> list[Endpoint]:
        ports = free_ports(len(self._servers))
        for spec, port in zip(self._servers, ports, strict=True):
            arguments = sim_arguments(spec, port, self._gauge_delay_s, self._max_model_len)
            self._processes.start_module(f"{policy}-{spec.name}", "extproc", *arguments)
        self._processes.wait_for(f"the backends of {policy}", lambda: all(map(accepts, ports)))
        return [
            Endpoint(spec.name, "127.0.0.1", port) for spec, port in zip(self._servers, ports, strict=True)
        ]


class Front:
    """Starts an Envoy before servers that run already, with the sidecar where the policy is its own."""

    def __init__(self, processes: Processes, directory: Path, model: str = MODEL) -> None:
        directory.mkdir()
        self._processes, self._directory, self._model = processes, directory, model

    def start(self, policy: str, backends: Sequence[Endpoint]) -> Arm:
        """The arm, when it answers."""
        directory = self._directory
        if policy == LAYERED:
            port = self._start_envoy(policy, directory, self._start_sidecar(directory, backends))
        else:
            (directory / "cds.json").write_bytes(_clusters(policy, backends))
            port = self._start_envoy(policy, directory, None)
        return Arm(port, [backend.port for backend in backends])

    def _start_sidecar(self, directory: Path, backends: Sequence[Endpoint]) -> str:
        grpc_port, http_port = free_ports(2)
        cds_path = directory / "cds.json"
        document = {
            "server": {"address": f"127.0.0.1:{grpc_port}"},
            "http": {"address": f"127.0.0.1:{http_port}"},
            "envoy": {"cds_path": str(cds_path)},
            "model": {"path": str(MODEL_FILE)},
            "backends": [
                {"name": each.name, "url": f"http://{each.host}:{each.port}", "models": [self._model]}
                for each in backends
            ],
        }
        config = directory / "extproc.yaml"
        config.write_text(yaml.safe_dump(document))
        self._processes.start_module("sidecar", "extproc", "serve", "--config", str(config))
        self._processes.wait_for(
            "the sidecar", lambda: cds_path.exists() and _is_complete(fetch(http_port, "/v1/state"))
        )
        return f"127.0.0.1:{grpc_port}"

    def _start_envoy(self, policy: str, directory: Path, ext_proc: str | None) -> int:
        port, admin_port = free_ports(2)
        text = bootstrap(
            shipped_bootstrap(),
            listen_port=port,
            admin_port=admin_port,
            ext_proc=ext_proc or _UNUSED_ADDRESS,
            cds_path=directory / "cds.json",
        )
        config = directory / "envoy.yaml"
        config.write_text(text if ext_proc else without_processor(text))
        start_envoy(self._processes, f"envoy-{policy}", config, _WORKERS)
        self._processes.wait_for(f"Envoy of {policy}", lambda: fetch(port, "/v1/models") is not None)
        return port


def sim_arguments(spec: ServerSpec, port: int, gauge_delay_s: float, max_model_len: int) -> list[str]:
    """The command line of `extproc sim` for one of the evaluator's servers."""
    plain = replace(spec.profile, speed=1.0)
    profile = next(name for name, known in PROFILES.items() if known == plain)
    options = {
        "port": port,
        "model": MODEL,
        "profile": profile,
        "speed": spec.profile.speed,
        "max-num-seqs": spec.limits.max_num_seqs,
        "max-model-len": max_model_len,
        "kv-cache-tokens": spec.limits.kv_cache_tokens,
        "max-num-batched-tokens": spec.limits.max_num_batched_tokens,
        "gauge-delay": gauge_delay_s,
    }
    return ["sim", *(f"--{name}={value}" for name, value in options.items())]


def _clusters(policy: str, backends: Sequence[Endpoint]) -> bytes:
    document = json.loads(cds_document(backends, "1"))
    pool = next(cluster for cluster in document["resources"] if cluster["name"] == POOL_CLUSTER)
    if policy == ROUND_ROBIN:
        pool["lb_policy"] = "ROUND_ROBIN"
    return json.dumps(document).encode()


def _is_complete(state: str | None) -> bool:
    """Every backend may be chosen, and has been scraped; and the model is there."""
    if state is None:
        return False
    document = json.loads(state)
    return document["model"] is not None and all(
        backend["is_routable"] and backend["scrape_age_s"] is not None for backend in document["backends"]
    )
