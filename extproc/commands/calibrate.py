"""`extproc calibrate`: an engine profile from a recorded load, and how well it foretells others."""

from pathlib import Path
from typing import Annotated

import typer


def calibrate(
    *,
    max_num_seqs: Annotated[int, typer.Option(help="That of the server.", min=1)],
    samples: Annotated[
        Path | None,
        typer.Option(
            help="Fit a profile to this load, which `extproc profile` has recorded.", metavar="FILE"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the fitted profile here, a .json file.", metavar="FILE")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="Or check one that there is: a name or a file.", metavar="PROFILE")
    ] = "",
    check: Annotated[
        list[Path] | None,
        typer.Option(help="A load that is foretold and compared; may be repeated.", metavar="FILE"),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Which one, where a load was put on several.", metavar="NAME")
    ] = None,
    server: Annotated[
        str, typer.Option(help="Ask the running server how large its KV cache is.", metavar="URL")
    ] = "",
    kv_cache_tokens: Annotated[
        int | None, typer.Option(help="Or say it, in tokens.", min=1, show_default="the profile's")
    ] = None,
    block_size: Annotated[int, typer.Option(help="And the tokens of a block.", min=1)] = 16,
    max_num_batched_tokens: Annotated[
        int, typer.Option(help="Tokens that the server computes in one iteration.", min=1)
    ] = 2048,
    page: Annotated[Path | None, typer.Option(help="Write a page with plots here.", metavar="FILE")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all numbers here.", metavar="FILE")] = None,
) -> None:
    """Make a twin of a server: fit an engine profile to a recorded load, and compare both on other loads.

    The load to fit to should span the prompt lengths and rates that the twin is for, from idle to somewhat
    past saturation. The file that comes out is a PROFILE for `extproc sim`, and in a fleet of `extproc
    evaluate`. Exit status 1 where TTFT p50, p90 or throughput of a checked load is off by more than 20 %.
    """
    from rich.console import Console  # noqa: PLC0415 - see the package's docstring

    from extproc.commands import calibrate_command  # noqa: PLC0415 - see the package's docstring

    options = calibrate_command.CalibrateOptions(
        samples=samples,
        out=out,
        profile=profile,
        checks=tuple(check or ()),
        backend=backend,
        server=server,
        kv_cache_tokens=kv_cache_tokens,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        page=page,
        json=json,
    )
    if not calibrate_command.calibrate(options, Console()).is_within:
        raise typer.Exit(1)
