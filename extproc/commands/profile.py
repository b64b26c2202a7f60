"""`extproc profile`: load on running servers, for samples of every zone."""

from dataclasses import dataclass
from pathlib import Path

import typer

from extproc.config.options import option, required, takes_options


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """The options of `extproc profile`; texts are not yet checked."""

    samples: Path = required("Record here; a store that exists is appended to.", metavar="FILE")
    backends: str = option("", "vLLM servers, which it sends to directly.", metavar="URL,URL")
    stack: str = option("", "Or the Envoy of a stack, with --state.", metavar="URL")
    state: str = option("", "HTTP address of the stack's sidecar.", metavar="URL")
    model: str | None = option(None, "The model to ask for.", show_default="what the servers have")
    rates: str = option(
        "0.5,1,2,4,8,16,32", "Requests per second, in all; a step for each.", metavar="N,N,..."
    )
    step_s: float = option(15.0, "Seconds of a step.", "--step", min=0.1, max=3600.0)
    passes: int = option(4, "How often through all steps.", min=1, max=1000)
    prompt: str = option(
        "lognormal:250:0.9",
        "Prompt tokens: fixed:N, lognormal:MEDIAN:SIGMA, mix:SHORT:LONG:SHARE_OF_LONG, csv:FILE (columns"
        " prompt_tokens, output_tokens).",
        metavar="LENGTHS",
    )
    output: str = option(
        "fixed:64", "Output tokens, likewise; of the same file, rows are kept.", metavar="LENGTHS"
    )
    max_in_flight: int = option(
        400, "More are not sent, and the pass ends: it is past saturation.", min=2, max=20_000
    )
    seed: int = option(1, "Of arrivals, lengths, prompts and places.", min=0)


@takes_options
def profile(options: ProfileOptions) -> None:
    """Drive servers from idle to saturation, and record every request. Ctrl-C keeps what was measured."""
    import uvloop
    from rich.console import Console

    from extproc.commands.profile_view import ProfileView, result_lines, summary_table
    from extproc.errors import ProfileError
    from extproc.lab.load.length_file import read_length_file
    from extproc.lab.load.profiled_servers import parse_servers
    from extproc.lab.load.profiler import run_profile
    from extproc.lab.traffic.workload import Schedule, Workload, parse_lengths, parse_rates

    servers = parse_servers(options.backends, options.stack, options.state)
    workload = Workload(
        parse_lengths(options.prompt, "prompt_tokens", read_length_file),
        parse_lengths(options.output, "output_tokens", read_length_file),
    )
    schedule, console = Schedule(parse_rates(options.rates), options.step_s, options.passes), Console()
    with ProfileView(console, schedule) as view:
        result = uvloop.run(
            run_profile(
                servers,
                options.model,
                workload,
                schedule,
                options.samples,
                view.refresh,
                view.step_ended,
                max_in_flight=options.max_in_flight,
                seed=options.seed,
            )
        )
    console.print(summary_table(result.figures))
    for line in result_lines(result, options.samples):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if result.ended_by is not None:
        raise ProfileError(result.ended_by)
    if result.was_interrupted and not result.figures.samples:
        raise typer.Exit(130)
