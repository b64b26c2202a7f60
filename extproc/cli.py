"""The command `extproc`.

Each command imports what it runs on when it runs (hence the many PLC0415), so that help and status are there
at once: the sidecar alone brings grpc, numpy and lightgbm.
"""

import logging
import sys
import time
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from extproc.adapters.local_stack.options import StackOptions
from extproc.adapters.simulated_vllm.options import SimOptions
from extproc.errors import ExtprocError

_UP = StackOptions()
_SIM = SimOptions()


class LogLevel(StrEnum):
    """How much the sidecar says on stderr."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


app = typer.Typer(
    help="Route LLM requests to vLLM servers: an external-processing sidecar for Envoy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run a command. An ExtprocError is a message on stderr and exit status 1, without a traceback."""
    try:
        app()
    except ExtprocError as error:
        print(f"extproc: {error}", file=sys.stderr)
        sys.exit(1)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print(f"extproc {version('vllm-extproc')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
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
) -> None:
    """Run everything on this machine: Envoy, the sidecar, backends. Ctrl-C stops all of it."""
    from rich.console import Console  # noqa: PLC0415 - see the module's docstring

    from extproc.stack import run_stack  # noqa: PLC0415 - see the module's docstring

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
    )
    run_stack(options, Console())


@app.command()
def serve(
    config: Annotated[
        Path, typer.Option(help="The configuration; extproc.example.yaml documents it.", metavar="FILE")
    ] = Path("extproc.yaml"),
    log_level: Annotated[
        LogLevel, typer.Option(help="debug adds a line for every request, at its outcome.")
    ] = LogLevel.INFO,
) -> None:
    """Run the sidecar until SIGTERM or SIGINT. The backends in its file may change meanwhile."""
    import uvloop  # noqa: PLC0415 - see the module's docstring

    from extproc.app import serve as serve_sidecar  # noqa: PLC0415 - see the module's docstring

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    uvloop.run(serve_sidecar(config))


@app.command()
def status(
    url: Annotated[
        str, typer.Option(help="The sidecar's HTTP address.")
    ] = f"http://127.0.0.1:{_UP.http_port}",
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second, until Ctrl-C.")] = False,
) -> None:
    """Show the fleet: zones, load, signals, predicted and observed TTFT, decisions by layer."""
    from rich.console import Console  # noqa: PLC0415 - see the module's docstring

    from extproc.adapters.terminal.status_command import (  # noqa: PLC0415 - see the module's docstring
        show_status,
        watch_status,
    )

    show = watch_status if watch else show_status
    show(url, Console())


@app.command()
def train(
    samples: Annotated[Path, typer.Option(help="What a sidecar has recorded.", metavar="FILE")],
    out: Annotated[
        Path,
        typer.Option(help="The model file to write; a sidecar that uses it takes it over.", metavar="FILE"),
    ],
) -> None:
    """Fit layer 2 on recorded samples of the medium zone."""
    from rich.console import Console  # noqa: PLC0415 - see the module's docstring

    from extproc.adapters.terminal import train_command  # noqa: PLC0415 - see the module's docstring

    report = train_command.train(samples, out, trained_at_s=time.time())
    Console().print(train_command.describe(report))


@app.command()
def sim(
    *,
    port: Annotated[
        int, typer.Option(help="0 picks a free one.", min=0, max=65535, metavar="PORT")
    ] = _SIM.port,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = _SIM.host,
    model: Annotated[
        list[str] | None, typer.Option(help="What it serves; may be repeated.", show_default=_SIM.models[0])
    ] = None,
    profile: Annotated[str, typer.Option(help="The machine that it is.")] = _SIM.profile,
    speed: Annotated[float, typer.Option(help="2 is twice as fast as the profile.")] = _SIM.speed,
    max_num_seqs: Annotated[int, typer.Option(help="Places in the batch.")] = _SIM.max_num_seqs,
    max_model_len: Annotated[
        int, typer.Option(help="Tokens of input and output together.")
    ] = _SIM.max_model_len,
    kv_cache_tokens: Annotated[
        int | None, typer.Option(help="Size of the KV cache.", show_default="the profile's")
    ] = _SIM.kv_cache_tokens,
    max_num_batched_tokens: Annotated[
        int, typer.Option(help="Tokens computed in one iteration.")
    ] = _SIM.max_num_batched_tokens,
    http_limit: Annotated[
        int | None, typer.Option(help="Requests let into the engine; others wait where no gauge counts them.")
    ] = _SIM.http_limit,
    fail_fraction: Annotated[
        float, typer.Option(help="Share of requests answered with 500.")
    ] = _SIM.fail_fraction,
    seed: Annotated[int, typer.Option(help="Of the failures.")] = _SIM.seed,
) -> None:
    """Simulate a vLLM server in real time: OpenAI endpoints, /metrics, continuous batching. No GPU."""
    import uvloop  # noqa: PLC0415 - see the module's docstring

    from extproc.adapters.simulated_vllm.server import serve_sim  # noqa: PLC0415 - see the module's docstring

    options = SimOptions(
        host=host,
        port=port,
        models=tuple(model) if model else _SIM.models,
        profile=profile,
        speed=speed,
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        kv_cache_tokens=kv_cache_tokens,
        max_num_batched_tokens=max_num_batched_tokens,
        http_limit=http_limit,
        fail_fraction=fail_fraction,
        seed=seed,
    )
    uvloop.run(serve_sim(options))
