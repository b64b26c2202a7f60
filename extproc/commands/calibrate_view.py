"""The output of `extproc calibrate`: a bar while it fits, then the fit and every comparison."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from extproc.lab.engine.engine_profile import EngineLimits
from extproc.lab.twin.agreement import TOLERANCE, Agreement, Calibration
from extproc.lab.twin.calibration import FITTED, Fit, fit_profile
from extproc.lab.twin.recording import Recording


def fit_with_progress(recording: Recording, limits: EngineLimits, console: Console) -> Fit:
    """Fit a profile; in a terminal a bar shows how far it is."""
    columns = (BarColumn(bar_width=20), TextColumn("fitting"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=1.0)
        return fit_profile(recording, limits, lambda share: progress.update(task, completed=share))


def show(calibration: Calibration, console: Console) -> None:
    """Print the fit, if there is one, and the comparisons."""
    if calibration.fit is not None:
        console.print(fit_table(calibration.fit))
        console.print(fit_sentence(calibration.fit), highlight=False)
    console.print(agreement_table(calibration.agreements, is_first_fitted=calibration.fit is not None))
    if not calibration.is_within and calibration.fit is not None:
        console.print(advice(calibration.fit), highlight=False)


def fit_table(fit: Fit) -> Table:
    """Return the times of the profile, and by how much they differ between fits to halves of the requests."""
    table = _table("profile", "microseconds", "uncertain by")
    for name in FITTED:
        time_us = getattr(fit.profile, name) * 1e6
        table.add_row(name.removesuffix("_s"), f"{time_us:.4g}", f"{fit.halves_differ[name]:.0%}")
    return table


def fit_sentence(fit: Fit) -> str:
    """Say how good the fit is."""
    return f"The twin predicts TTFT and decoding time of half of the requests within {fit.typical_error:.1%}."


def advice(fit: Fit) -> str:
    """Say what to do about a twin that is not good enough."""
    name, uncertainty = max(fit.halves_differ.items(), key=lambda each: each[1])
    if uncertainty > TOLERANCE:
        text = f"{name.removesuffix('_s')} is uncertain by {uncertainty:.0%}: record longer"
        return f"{text}, from idle to past saturation, and fit again."
    return (
        "The profile itself is certain. Check --max-num-seqs and the KV cache size, and that nothing else"
        " used the server during the recordings; or fit to a load that is more like the checked one."
    )


def agreement_table(agreements: Sequence[Agreement], *, is_first_fitted: bool) -> Table:
    """Return the figures of each load, of server and twin, and the error; 80 columns hold it."""
    table = _table("load", "figure", "server", "twin", "error")
    for number, each in enumerate(agreements):
        verdict = f"within {TOLERANCE:.0%}" if each.is_within else f"NOT within {TOLERANCE:.0%}"
        notes = (
            escape(each.name),
            f"{each.requests} requests",
            "fitted to this" if is_first_fitted and number == 0 else verdict,
            f"{each.given_up} given up" if each.given_up else "",
        )
        for note, (title, figure) in zip(notes, each.shown(), strict=True):
            table.add_row(note, title, *figure.texts)
        table.add_section()
    return table


def _table(*columns: str) -> Table:
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 or column == "figure" else "right")
    return table
