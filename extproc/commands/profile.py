"""`extproc profile`: load on running servers, for samples of every zone."""

from pathlib import Path
from typing import Annotated

import typer


def profile(
    *,
    samples: Annotated[
        Path, typer.Option(help="Record here; a store that exists is appended to.", metavar="FILE")
    ],
    backends: Annotated[
        str, typer.Option(help="vLLM servers, which it sends to directly.", metavar="URL,URL")
    ] = "",
    stack: Annotated[str, typer.Option(help="Or the Envoy of a stack, with --state.", metavar="URL")] = "",
    state: Annotated[str, typer.Option(help="HTTP address of the stack's sidecar.", metavar="URL")] = "",
    model: Annotated[
        str | None, typer.Option(help="The model to ask for.", show_default="what the servers have")
    ] = None,
    rates: Annotated[
        str, typer.Option(help="Requests per second, in all; a step for each.", metavar="N,N,...")
    ] = "0.5,1,2,4,8,16,32",
    step: Annotated[float, typer.Option(help="Seconds of a step.", min=0.1, max=3600.0)] = 15.0,
    passes: Annotated[int, typer.Option(help="How often through all steps.", min=1, max=1000)] = 4,
    prompt: Annotated[
        str,
        typer.Option(
            help="Prompt tokens: fixed:N, lognormal:MEDIAN:SIGMA, mix:SHORT:LONG:SHARE_OF_LONG, csv:FILE "
            "(columns prompt_tokens, output_tokens).",
            metavar="LENGTHS",
        ),
    ] = "lognormal:250:0.9",
    output: Annotated[
        str,
        typer.Option(help="Output tokens, likewise; of the same file, rows are kept.", metavar="LENGTHS"),
    ] = "fixed:64",
    max_in_flight: Annotated[
        int,
        typer.Option(help="More are not sent, and the pass ends: it is past saturation.", min=2, max=20_000),
    ] = 400,
    seed: Annotated[int, typer.Option(help="Of arrivals, lengths, prompts and places.", min=0)] = 1,
) -> None:
    """Drive servers from idle to saturation, and record every request. Ctrl-C keeps what was measured."""
    import uvloop
    from rich.console import Console

    from extproc.commands.profile_view import ProfileView, result_lines, summary_table
    from extproc.errors import ProfileError
    from extproc.lab.load.length_file import read_length_file
    from extproc.lab.load.profiled_servers import parse_servers
    from extproc.lab.load.profiler import run_profile
    from extproc.lab.traffic.workload import Schedule, Workload, parse_lengths, parse_rates

    servers = parse_servers(backends, stack, state)
    workload = Workload(
        parse_lengths(prompt, "prompt_tokens", read_length_file),
        parse_lengths(output, "output_tokens", read_length_file),
    )
    schedule, console = Schedule(parse_rates(rates), step, passes), Console()
    with ProfileView(console, schedule) as view:
        run = run_profile(
            servers, model, workload, schedule, samples, view, max_in_flight=max_in_flight, seed=seed
        )
        result = uvloop.run(run)
    console.print(summary_table(result.figures))
    for line in result_lines(result, samples):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if result.ended_by is not None:
        raise ProfileError(result.ended_by)
    if result.was_interrupted and not result.figures.samples:
        raise typer.Exit(130)
