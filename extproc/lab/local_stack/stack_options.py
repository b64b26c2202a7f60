"""What `extproc up` may be told."""

from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
"""Everything listens here, so that nothing of it can be reached from outside."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """Ports, backends and files of a local stack. Without `backend_urls` the backends are simulated.

    All stages but addresses, paths and backends come from `policy_path`, where there is one. Without
    `run_dir` everything is written to a temporary directory, recorded samples included. With `learn` a
    trainer runs as well, and the model file is in that directory too, unless `model_path` names another.
    """

    backend_urls: tuple[str, ...] = ()
    port: int = 8080
    admin_port: int = 9901
    grpc_address: str = f"{HOST}:9002"
    http_port: int = 9003
    sim_port: int = 8101
    policy_path: Path | None = None
    model_path: Path | None = None
    samples_path: Path | None = None
    run_dir: Path | None = None
    learn: bool = False
