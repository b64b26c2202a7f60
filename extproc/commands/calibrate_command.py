"""`extproc calibrate`: recorded loads in; a profile, a table, a page and numbers out."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from extproc.adapters.files.atomic_file import write_atomically
from extproc.adapters.files.sample_table import read_samples
from extproc.adapters.vllm.exposition import KvCacheSize, ask_kv_cache_size
from extproc.commands.calibrate_view import agreement_table, fit_sentence, fit_table
from extproc.errors import CalibrationError, ReportError
from extproc.lab.engine.engine_limits import EngineLimits
from extproc.lab.engine.engine_profile import EngineProfile
from extproc.lab.reports.calibration_page import calibration_page
from extproc.lab.twin.agreement import Agreement, agreement
from extproc.lab.twin.calibration import Fit, fit_profile
from extproc.lab.twin.profile_file import (
    SUFFIX,
    Origin,
    ProfileFile,
    find_profile,
    write_profile_file,
)
from extproc.lab.twin.recording import RECORDING_COLUMNS, Recording, recording_of


@dataclass(frozen=True, slots=True)
class CalibrateOptions:
    """What was asked for; exactly one of `samples` and `profile` is given, the latter's absence is ""."""

    samples: Path | None
    out: Path | None
    profile: str
    checks: tuple[Path, ...]
    backend: str | None
    server: str
    kv_cache_tokens: int | None
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    page: Path | None
    json: Path | None


class Calibration(msgspec.Struct, frozen=True):
    """What came of it: the fit, None where the profile was given, and how the twin did on each load.

    Of the loads, the first is the one that was fitted to, where there is one.
    """

    profile: EngineProfile
    limits: EngineLimits
    fit: Fit | None
    agreements: tuple[Agreement, ...]

    @property
    def checked(self) -> tuple[Agreement, ...]:
        """The loads that nothing was fitted to."""
        return self.agreements if self.fit is None else self.agreements[1:]

    @property
    def is_within(self) -> bool:
        """Whether the twin has foretold all of these."""
        return all(each.is_within for each in self.checked)


def calibrate(options: CalibrateOptions, console: Console) -> Calibration:
    """Fit or take a profile, compare, show it, write the files.

    Raises CalibrationError, ConfigError, SampleStoreError, and ReportError for files not written.
    """
    _check(options)
    limits = _limits(options)
    paths = (() if options.samples is None else (options.samples,)) + options.checks
    loads = [(path.name, _recording(path, options.backend)) for path in paths]
    fit = None if options.samples is None else _fit(loads[0][1], limits, console)
    profile = find_profile(options.profile) if fit is None else fit.profile
    if fit is not None and options.out is not None:
        origin = _origin(*loads[0], fit)
        write_profile_file(options.out, ProfileFile(profile=profile, limits=limits, origin=origin))
    agreements = tuple(agreement(name, recording, profile, limits) for name, recording in loads)
    calibration = Calibration(profile, limits, fit, agreements)
    if fit is not None:
        console.print(fit_table(fit))
        console.print(fit_sentence(fit), highlight=False)
    console.print(agreement_table(calibration.agreements, is_first_fitted=fit is not None))
    _write_files(options, calibration)
    return calibration


def _check(options: CalibrateOptions) -> None:
    if (options.samples is None) == (not options.profile):
        raise CalibrationError("give either --samples FILE, to fit a profile to, or --profile, to check")
    if options.samples is None and not options.checks:
        raise CalibrationError("a given profile needs a load to compare it on: --check FILE")
    if options.samples is None and options.out is not None:
        raise CalibrationError("--out is where a fitted profile goes: it needs --samples")
    if options.out is not None and options.out.suffix != SUFFIX:
        raise CalibrationError(f"--out: the name of a profile file ends in {SUFFIX}, and not {options.out}")


def _limits(options: CalibrateOptions) -> EngineLimits:
    if options.server:
        size = ask_kv_cache_size(options.server)
    elif options.kv_cache_tokens is not None:
        size = KvCacheSize(options.kv_cache_tokens, options.block_size)
    elif options.profile:
        size = KvCacheSize(find_profile(options.profile).kv_cache_tokens, options.block_size)
    else:
        raise CalibrationError("how large is the KV cache? give --server URL or --kv-cache-tokens")
    return EngineLimits(
        kv_cache_tokens=size.kv_cache_tokens,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        block_size=size.block_size,
    )


def _recording(path: Path, backend: str | None) -> Recording:
    try:
        return recording_of(read_samples(path, RECORDING_COLUMNS), backend)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error


def _fit(recording: Recording, limits: EngineLimits, console: Console) -> Fit:
    columns = (BarColumn(bar_width=20), TextColumn("fitting"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=1.0)
        return fit_profile(recording, limits, lambda share: progress.update(task, completed=share))


def _origin(name: str, recording: Recording, fit: Fit) -> Origin:
    return Origin(
        samples=name,
        backend=recording.backend,
        first_at_s=recording.began_s,
        requests=len(recording.at_s),
        typical_error=fit.typical_error,
        halves_differ=fit.halves_differ,
    )


def _write_files(options: CalibrateOptions, calibration: Calibration) -> None:
    if options.json is not None:
        _write(options.json, msgspec.json.format(msgspec.json.encode(calibration)) + b"\n")
    if options.page is not None:
        _write(options.page, calibration_page(calibration.fit, calibration.agreements, calibration.limits))


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}") from error
