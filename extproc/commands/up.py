"""`extproc up`: a whole stack on this machine; its options are those of `StackOptions`."""

from extproc.config.options import takes_options
from extproc.lab.local_stack.stack_options import StackOptions


@takes_options
def up(options: StackOptions) -> None:
    """Run everything on this machine: Envoy, the sidecar, backends. Ctrl-C stops all of it."""
    from rich.console import Console

    from extproc.lab.local_stack.stack import run_stack

    run_stack(options, Console())
