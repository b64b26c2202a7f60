"""The options of `extproc up`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

HOST = "127.0.0.1"
"""Everything listens here, so that nothing of it can be reached from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """Ports, backends and files of a local stack. Without `backends` three are simulated.

    All stages but addresses, paths and backends come from `policy_path`, where there is one. Without
    `run_dir` everything is written to a temporary directory, recorded samples included. With `learn` a
    trainer runs as well, and the model file is in that directory too, unless `model_path` names another.
    """

    backends: Annotated[
        str, typer.Option(help="Running vLLM servers; without them three are simulated.", metavar="URL,URL")
    ] = ""
    port: Annotated[int, typer.Option(help="Envoy, for clients.", min=1, max=65535, metavar="PORT")] = 8080
    admin_port: Annotated[
        int, typer.Option(help="Envoy's admin interface.", min=1, max=65535, metavar="PORT")
    ] = 9901
    grpc_address: Annotated[
        str,
        typer.Option("--grpc", help="The sidecar's gRPC: HOST:PORT or unix:///PATH.", metavar="ADDRESS"),
    ] = f"{HOST}:9002"
    http_port: Annotated[
        int,
        typer.Option(help="The sidecar's HTTP: live page, state, metrics.", min=1, max=65535, metavar="PORT"),
    ] = 9003
    sim_port: Annotated[
        int,
        typer.Option(
            help="The first simulated backend; the others follow it.", min=1, max=65533, metavar="PORT"
        ),
    ] = 8101
    policy_path: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Take the policy from this file: all but addresses, Envoy's cluster file and backends.",
            metavar="FILE",
        ),
    ] = None
    model_path: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="The model file of layer 2.",
            metavar="FILE",
            show_default="models/zone2_predictor.json",
        ),
    ] = None
    samples_path: Annotated[
        Path | None,
        typer.Option(
            "--samples", help="Record outcomes here.", metavar="FILE", show_default="in the run directory"
        ),
    ] = None
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Keep logs, configuration, samples here.", metavar="DIR", show_default="temporary"),
    ] = None
    learn: Annotated[
        bool,
        typer.Option(
            "--learn", help="Run a trainer too. Without --model it starts from nothing, in the run directory."
        ),
    ] = False

    @property
    def backend_urls(self) -> tuple[str, ...]:
        """The URLs in `backends`, which are not yet checked."""
        return tuple(url.strip() for url in self.backends.split(",") if url.strip())
