"""`extproc profile`: load on running servers, for samples of every zone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from extproc.config.options import option, required, takes_options
from extproc.errors import ConfigError, ProfileError

if TYPE_CHECKING:
    from extproc.lab.load.profiled_servers import Servers
    from extproc.lab.traffic.step_requests import DrawnRequests
    from extproc.lab.traffic.trace import Trace

DEFAULT_PROMPT, DEFAULT_OUTPUT = "lognormal:250:0.9", "fixed:64"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """The options of `extproc profile`; texts are not yet checked."""

    samples: Path = required(
        "Sample store to write to; samples are added to an existing one.", metavar="FILE"
    )
    backends: str = option("", "URLs of vLLM servers, to send to directly.", metavar="URL,URL")
    envoy: str = option(
        "", "URL of an Envoy, to send through it instead of --backends; needs --sidecar.", metavar="URL"
    )
    sidecar: str = option("", "HTTP address of the sidecar of --envoy.", metavar="URL")
    model: str | None = option(
        None, "Model that the requests name.", metavar="NAME", show_default="what the servers have"
    )
    rates: str = option(
        "0.5,1,2,4,8,16,32",
        "Request rates, in requests per second for all servers together; one step for each.",
        metavar="N,N,...",
    )
    step_s: float = option(15.0, "Length of a step, in seconds.", "--step", min=0.1, max=3600.0)
    passes: int = option(4, "Number of passes through all steps.", min=1, max=1000)
    prompt: str | None = option(
        None,
        "Distribution of prompt tokens: fixed:N, lognormal:MEDIAN:SIGMA, mix:SHORT:LONG:SHARE_OF_LONG,"
        " csv:FILE (columns prompt_tokens, output_tokens; or a trace).",
        metavar="LENGTHS",
        show_default=DEFAULT_PROMPT,
    )
    output: str | None = option(
        None,
        "Distribution of output tokens, written as for --prompt; with the same csv:FILE, prompt and output"
        " come from one row.",
        metavar="LENGTHS",
        show_default=DEFAULT_OUTPUT,
    )
    trace: str | None = option(
        None,
        "Recorded trace to send instead of --prompt and --output, with its bursts and shared"
        " prefixes, stretched to the rate of each step. Formats as for `extproc evaluate`.",
        metavar="FILE",
    )
    max_in_flight: int = option(
        400,
        "Limit of requests in flight, beyond which the pass ends: the servers are past saturation.",
        min=2,
        max=20_000,
    )
    seed: int = option(1, "Seed of the random arrivals, lengths, prompts and servers.", min=0)
    yes: bool = option(False, "Start without a question, also if the servers hold other requests.", "--yes")


@takes_options
def profile(options: ProfileOptions) -> None:
    """Load servers from idle to saturation, and record every request.

    Ctrl-C keeps what was measured.
    """
    import uvloop
    from rich.console import Console

    from extproc.commands.profile_view import ProfileView, plan_lines, result_lines, summary_table
    from extproc.commands.trace_view import missing_lines
    from extproc.lab.load.profiled_servers import parse_servers
    from extproc.lab.load.profiler import run_profile
    from extproc.lab.traffic.step_requests import RecordedRequests
    from extproc.lab.traffic.workload import Schedule, parse_rates

    servers = parse_servers(options.backends, options.envoy, options.sidecar)
    trace = _trace(options)
    requests = _drawn(options) if trace is None else RecordedRequests(trace)
    schedule, console = Schedule(parse_rates(options.rates), options.step_s, options.passes), Console()
    for line in plan_lines(schedule, options.max_in_flight):
        console.print(line, highlight=False, soft_wrap=True)
    if console.is_terminal and not options.yes:
        _ask_first(servers)
    view = ProfileView(console, schedule)
    with view.progress:
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


def _ask_first(servers: "Servers") -> None:
    """Ask for confirmation where the servers hold requests of others; raises typer.Abort without it."""
    from extproc.lab.load.other_traffic import requests_of_others

    held = requests_of_others(servers)
    if held >= 1:
        typer.confirm(f"The servers hold {held:.0f} requests of others. Load them all the same?", abort=True)


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
