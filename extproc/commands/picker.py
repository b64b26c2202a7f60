"""`extproc picker`: the sidecar behind any gateway; its options are those that the charts of pickers pass."""

import logging
from pathlib import Path

import typer
from typer.core import TyperCommand

from extproc.commands.picker_options import FLAGS, PickerOptions
from extproc.commands.serve import LOG_FORMAT
from extproc.config.options import takes_options


class PickerCommand(TyperCommand):
    """Takes flags as Go's programs do: a flag that is true or false may stand without a value."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Give these flags their value."""
        return super().parse_args(ctx, [f"{each}=true" if each in FLAGS else each for each in args])


@takes_options
def picker(options: PickerOptions) -> None:
    """Choose a server for each request of a gateway.

    It runs until SIGTERM or SIGINT.
    """
    import tempfile

    import uvloop

    from extproc.commands.picker_setup import config_of, setup_of
    from extproc.picker_app import pick

    logging.basicConfig(level=options.log_level.upper(), format=LOG_FORMAT)
    with tempfile.TemporaryDirectory(prefix="extproc-picker-") as directory:
        config, config_path = config_of(options)
        uvloop.run(pick(config, config_path, setup_of(options, Path(directory))))
