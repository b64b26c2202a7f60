"""`extproc profile`: load on running servers, for samples of every zone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from extproc.config.options import option, required, takes_options
from extproc.errors import ConfigError, ProfileError

if TYPE_CHECKING:
    from extproc.lab.traffic.step_requests import DrawnRequests
    from extproc.lab.traffic.trace import Trace

DEFAULT_PROMPT, DEFAULT_OUTPUT = "lognormal:250:0.9", "fixed:64"


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
    prompt: str | None = option(
        None,
        "Prompt tokens: fixed:N, lognormal:MEDIAN:SIGMA, mix:SHORT:LONG:SHARE_OF_LONG, csv:FILE (columns"
        " prompt_tokens, output_tokens; or a trace).",
        metavar="LENGTHS",
        show_default=DEFAULT_PROMPT,
    )
    output: str | None = option(
        None,
        "Output tokens, likewise; of the same file, rows are kept.",
        metavar="LENGTHS",
        show_default=DEFAULT_OUTPUT,
    )
    trace: str | None = option(
        None,
        "Instead of --prompt and --output: the requests of a recorded trace, with its bursts and shared"
        " prefixes, stretched to the rate of each step. Formats as for `extproc evaluate`.",
        metavar="FILE",
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
    from extproc.commands.trace_view import missing_lines
    from extproc.lab.load.profiled_servers import parse_servers
    from extproc.lab.load.profiler import run_profile
    from extproc.lab.traffic.step_requests import RecordedRequests
    from extproc.lab.traffic.workload import Schedule, parse_rates

    servers = parse_servers(options.backends, options.stack, options.state)
    trace = _trace(options)
    requests = _drawn(options) if trace is None else RecordedRequests(trace)
    schedule, console = Schedule(parse_rates(options.rates), options.step_s, options.passes), Console()
    with ProfileView(console, schedule) as view:
        result = uvloop.run(
            run_profile(
                servers,
                options.model,
                requests,
                schedule,
                options.samples,
                view.refresh,
                view.step_ended,
                max_in_flight=options.max_in_flight,
                seed=options.seed,
            )
        )
    console.print(summary_table(result.figures))
    lines = result_lines(result, options.samples)
    if isinstance(requests, RecordedRequests):
        lines += missing_lines(requests.trace, requests.cut, result.max_model_len)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if result.ended_by is not None:
        raise ProfileError(result.ended_by)
    if result.was_interrupted and not result.figures.samples:
        raise typer.Exit(130)


def _trace(options: ProfileOptions) -> "Trace | None":
    """Read the trace of the options; ConfigError where it is none, or comes with other lengths."""
    from extproc.lab.load.trace_file import read_trace_file

    if options.trace is None:
        return None
    if options.prompt is not None or options.output is not None:
        raise ConfigError("--trace has lengths of its own: give either --trace or --prompt and --output")
    return read_trace_file(options.trace)


def _drawn(options: ProfileOptions) -> "DrawnRequests":
    from extproc.lab.load.trace_file import read_length_file
    from extproc.lab.traffic.step_requests import DrawnRequests
    from extproc.lab.traffic.workload import Workload, parse_lengths

    return DrawnRequests(
        Workload(
            parse_lengths(options.prompt or DEFAULT_PROMPT, "prompt_tokens", read_length_file),
            parse_lengths(options.output or DEFAULT_OUTPUT, "output_tokens", read_length_file),
        )
    )
