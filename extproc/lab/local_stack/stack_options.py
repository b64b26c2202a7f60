"""The options of `extproc up`."""

from dataclasses import dataclass
from pathlib import Path

from extproc.config.options import option

HOST = "127.0.0.1"
"""Everything listens here, so that nothing of it can be reached from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """Ports, backends and files of a local stack."""

    backends: str = option(
        "", "URLs of running vLLM servers; without them, three servers are simulated.", metavar="URL,URL"
    )
    port: int = option(8080, "Port on which Envoy serves clients.", min=1, max=65535, metavar="PORT")
    admin_port: int = option(9901, "Port of Envoy's admin interface.", min=1, max=65535, metavar="PORT")
    grpc_address: str = option(
        f"{HOST}:9002",
        "Address of the sidecar's gRPC: HOST:PORT or unix:///PATH.",
        "--grpc",
        metavar="ADDRESS",
    )
    http_port: int = option(
        9003, "Port of the sidecar's live page, state and metrics.", min=1, max=65535, metavar="PORT"
    )
    sim_port: int = option(
        8101,
        "Port of the first simulated server; the others have the next ports.",
        min=1,
        max=65533,
        metavar="PORT",
    )
    policy_path: Path | None = option(
        None,
        "Configuration file whose settings are used, except addresses, Envoy's cluster file and backends.",
        "--config",
        metavar="FILE",
    )
    model_path: Path | None = option(
        None,
        "Model file of layer 2.",
        "--model",
        metavar="FILE",
        show_default="models/zone2_predictor.json",
    )
    samples_path: Path | None = option(
        None, "File to record outcomes in.", "--samples", metavar="FILE", show_default="in the run directory"
    )
    run_dir: Path | None = option(
        None, "Directory for logs, configuration and samples.", metavar="DIR", show_default="temporary"
    )
    learn: bool = option(
        False,
        "Run a trainer, too. Without --model it starts without a model, in the run directory.",
        "--learn",
    )
