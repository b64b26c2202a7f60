"""The command `extproc`: its subcommands by name, and how errors end it."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from extproc.commands.analyze import analyze
from extproc.commands.calibrate import calibrate
from extproc.commands.clusters import clusters
from extproc.commands.evaluate import evaluate
from extproc.commands.init import init
from extproc.commands.picker import PickerCommand, picker
from extproc.commands.profile import profile
from extproc.commands.samples import samples_app
from extproc.commands.serve import serve
from extproc.commands.sim import sim
from extproc.commands.status import status
from extproc.commands.train import train
from extproc.commands.trainer import trainer
from extproc.commands.up import up
from extproc.errors import ExtprocError

app = typer.Typer(
    help="Route LLM requests to vLLM servers: an external-processing sidecar for Envoy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (up, init, serve, clusters, status, profile, analyze, train, trainer, calibrate, evaluate, sim)
for command in COMMANDS:
    app.command()(command)
app.command("picker", cls=PickerCommand)(picker)
app.add_typer(samples_app, name="samples")


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
