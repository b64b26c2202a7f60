"""`extproc calibrate`: an engine profile from a recorded load, and how well it predicts others."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from extproc.config.options import option, required, takes_options
from extproc.errors import CalibrationError, ReportError
from extproc.lab.twin.profile_file import SUFFIX, find_profile

if TYPE_CHECKING:
    from rich.console import Console

    from extproc.lab.engine.engine_profile import EngineLimits
    from extproc.lab.twin.agreement import Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions:
    """The options of `extproc calibrate`; exactly one of `samples` and `profile` has to be given."""

    max_num_seqs: int = required("Setting max_num_seqs of the recorded server.", min=1)
    samples: Path | None = option(
        None, "Sample store of the load to fit to, written by `extproc profile`.", metavar="FILE"
    )
    out: Path | None = option(None, "File for the fitted profile, ending in .json.", metavar="FILE")
    profile: str = option(
        "", "Existing profile to check instead of fitting one: a name or a file.", metavar="PROFILE"
    )
    check: tuple[Path, ...] = option(
        (), "Sample store of a load to predict and compare; may be repeated.", metavar="FILE"
    )
    backend: str | None = option(None, "Name of the server, if the load was sent to several.", metavar="NAME")
    server: str = option("", "URL of the running server, to ask for its KV cache size.", metavar="URL")
    kv_cache_tokens: int | None = option(
        None,
        "KV cache size of the server in tokens, instead of --server.",
        min=1,
        show_default="the profile's",
    )
    block_size: int = option(16, "Size of a KV cache block, in tokens.", min=1)
    max_num_batched_tokens: int = option(
        2048, "Setting max_num_batched_tokens of the server: tokens computed in one iteration.", min=1
    )
    page: Path | None = option(None, "File for a page with plots.", metavar="FILE")
    json: Path | None = option(None, "File for all numbers, as JSON.", metavar="FILE")

    def __post_init__(self) -> None:
        if (self.samples is None) == (not self.profile):
            raise CalibrationError("give either --samples FILE, to fit a profile to, or --profile, to check")
        if self.samples is None and not self.check:
            raise CalibrationError("--profile needs a load to compare it with: --check FILE")
        if self.samples is None and self.out is not None:
            raise CalibrationError("--out takes a fitted profile: it needs --samples")
        if self.out is not None and self.out.suffix != SUFFIX:
            raise CalibrationError(f"--out: the name of a profile file ends in {SUFFIX}, and not {self.out}")


@takes_options
def calibrate(options: CalibrateOptions) -> None:
    """Make a twin of a server from a recorded load.

    An engine profile is fitted to the load, and compared with the server on other loads. The load to fit
    to should span the prompt lengths and rates that the twin is for, from idle to somewhat past
    saturation. The file that comes out is a PROFILE for `extproc sim`, and in a fleet of `extproc
    evaluate`. Exit status 1 if TTFT p50, p90 or throughput of a checked load is off by more than 20 %.
    """
    from rich.console import Console

    from extproc.adapters.files.atomic_file import write_json, write_or_raise
    from extproc.lab.reports.calibration_page import calibration_page

    limits = _limits(options)
    calibration = _calibration(options, limits, Console())
    if options.json is not None:
        write_json(options.json, calibration, ReportError)
    if options.page is not None:
        page = calibration_page(calibration.fit, calibration.agreements, limits)
        write_or_raise(options.page, page, ReportError)
    if not calibration.is_within:
        raise typer.Exit(1)


def _limits(options: CalibrateOptions) -> "EngineLimits":
    from extproc.adapters.vllm.dialects import KvCacheSize
    from extproc.adapters.vllm.exposition import ask_kv_cache_size
    from extproc.lab.engine.engine_profile import EngineLimits

    if options.server:
        size = ask_kv_cache_size(options.server)
    elif options.kv_cache_tokens is not None:
        size = KvCacheSize(options.kv_cache_tokens, options.block_size)
    elif options.profile:
        size = KvCacheSize(find_profile(options.profile).kv_cache_tokens, options.block_size)
    else:
        raise CalibrationError("the size of the KV cache is needed: give --server URL or --kv-cache-tokens N")
    return EngineLimits(
        kv_cache_tokens=size.kv_cache_tokens,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        block_size=size.block_size,
    )


def _calibration(options: CalibrateOptions, limits: "EngineLimits", console: "Console") -> "Calibration":
    """Fit a profile and write it, or find the one that is given; compare it on every load, and show all."""
    from extproc.adapters.files.atomic_file import write_json
    from extproc.commands.calibrate_view import fit_with_progress, show
    from extproc.lab.twin.agreement import Calibration, agreement
    from extproc.lab.twin.calibration import fitted_profile
    from extproc.lab.twin.recording import read_recording

    paths = (() if options.samples is None else (options.samples,)) + options.check
    loads = [(path.name, read_recording(path, options.backend)) for path in paths]
    fit = None if options.samples is None else fit_with_progress(loads[0][1], limits, console)
    if fit is not None and options.out is not None:
        write_json(options.out, fitted_profile(*loads[0], limits, fit), CalibrationError)
    profile = find_profile(options.profile) if fit is None else fit.profile
    agreements = tuple(agreement(name, recording, profile, limits) for name, recording in loads)
    calibration = Calibration(profile, limits, fit, agreements)
    show(calibration, console)
    return calibration
