"""`extproc up`, `serve` and `status`: running a stack or a sidecar, and looking at it."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from extproc.lab.local_stack.stack_options import StackOptions

_UP = StackOptions()
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class LogLevel(StrEnum):
    """How much the sidecar says on stderr."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


def up(
    *,
    backends: Annotated[
        str, typer.Option(help="Running vLLM servers; without them three are simulated.", metavar="URL,URL")
    ] = "",
    port: Annotated[
        int, typer.Option(help="Envoy, for clients.", min=1, max=65535, metavar="PORT")
    ] = _UP.port,
    admin_port: Annotated[
        int, typer.Option(help="Envoy's admin interface.", min=1, max=65535, metavar="PORT")
    ] = _UP.admin_port,
    grpc: Annotated[
        str, typer.Option(help="The sidecar's gRPC: HOST:PORT or unix:///PATH.", metavar="ADDRESS")
    ] = _UP.grpc_address,
    http_port: Annotated[
        int,
        typer.Option(help="The sidecar's HTTP: live page, state, metrics.", min=1, max=65535, metavar="PORT"),
    ] = _UP.http_port,
    sim_port: Annotated[
        int,
        typer.Option(
            help="The first simulated backend; the others follow it.", min=1, max=65533, metavar="PORT"
        ),
    ] = _UP.sim_port,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Take the policy from this file: all but addresses, Envoy's cluster file and backends.",
            metavar="FILE",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="The model file of layer 2.", metavar="FILE", show_default="models/zone2_predictor.json"
        ),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(help="Record outcomes here.", metavar="FILE", show_default="in the run directory"),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Keep logs, configuration, samples here.", metavar="DIR", show_default="temporary"),
    ] = None,
    learn: Annotated[
        bool,
        typer.Option(
            "--learn", help="Run a trainer too. Without --model it starts from nothing, in the run directory."
        ),
    ] = False,
) -> None:
    """Run everything on this machine: Envoy, the sidecar, backends. Ctrl-C stops all of it."""
    from rich.console import Console  # noqa: PLC0415 - see the package's docstring

    from extproc.lab.local_stack.stack import run_stack  # noqa: PLC0415 - see the package's docstring

    options = StackOptions(
        backend_urls=tuple(url.strip() for url in backends.split(",") if url.strip()),
        port=port,
        admin_port=admin_port,
        grpc_address=grpc,
        http_port=http_port,
        sim_port=sim_port,
        policy_path=config,
        model_path=model,
        samples_path=samples,
        run_dir=run_dir,
        learn=learn,
    )
    run_stack(options, Console())


def serve(
    config: Annotated[
        Path, typer.Option(help="The configuration; extproc.example.yaml documents it.", metavar="FILE")
    ] = Path("extproc.yaml"),
    log_level: Annotated[
        LogLevel, typer.Option(help="debug adds a line for every request, at its outcome.")
    ] = LogLevel.INFO,
) -> None:
    """Run the sidecar until SIGTERM or SIGINT. The backends in its file may change meanwhile."""
    import uvloop  # noqa: PLC0415 - see the package's docstring

    from extproc.app import serve as serve_sidecar  # noqa: PLC0415 - see the package's docstring

    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT)
    uvloop.run(serve_sidecar(config))


def clusters(
    config: Annotated[
        Path, typer.Option(help="The sidecars' configuration, with a `discovery`.", metavar="FILE")
    ] = Path("extproc.yaml"),
) -> None:
    """Only write Envoy's cluster file, beside an Envoy whose sidecars run elsewhere. Ends as `serve` does."""
    import uvloop  # noqa: PLC0415 - see the package's docstring

    from extproc.adapters.discovery.clusters import write_clusters  # noqa: PLC0415 - see the package's docstring

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    uvloop.run(write_clusters(config))


def status(
    url: Annotated[
        str, typer.Option(help="The sidecar's HTTP address.")
    ] = f"http://127.0.0.1:{_UP.http_port}",
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second, until Ctrl-C.")] = False,
) -> None:
    """Show the fleet: zones, load, signals, predicted and observed TTFT, decisions by layer."""
    from rich.console import Console  # noqa: PLC0415 - see the package's docstring

    from extproc.commands.status_command import (  # noqa: PLC0415 - see the package's docstring
        show_status,
        watch_status,
    )

    show = watch_status if watch else show_status
    show(url, Console())
