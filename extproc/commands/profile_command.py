"""`extproc profile`: runs it with a display, and says what came of it."""

import uvloop
from rich.console import Console

from extproc.commands.profile_view import ProfileView, result_lines, summary_table
from extproc.errors import ProfileError
from extproc.lab.load.profile_options import ProfileOptions
from extproc.lab.load.profiler import ProfileResult, run_profile


def profile(options: ProfileOptions, console: Console) -> ProfileResult:
    """Run it and print the summary; raises ProfileError where it cannot begin, or ended by failures."""
    with ProfileView(console, options.schedule) as view:
        result = uvloop.run(run_profile(options, view))
    console.print(summary_table(result.figures))
    for line in result_lines(result, options.samples):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if result.ended_by is not None:
        raise ProfileError(result.ended_by)
    return result
