"""`extproc profile` in the terminal: a progress bar if it is one, a line for every step, a table at the end.

Figures in, text out; the bar is the only state.
"""

from collections import Counter
from pathlib import Path

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from extproc.lab.load.figures import Figures, StepFigures, percentiles_s
from extproc.lab.load.profiler import ProfileResult
from extproc.lab.traffic.workload import Schedule, Step


class ProfileView:
    """The display of one run; `progress` is its bar, which takes the terminal's last line."""

    def __init__(self, console: Console, schedule: Schedule) -> None:
        self._console = console
        self._schedule = schedule
        columns = (BarColumn(bar_width=8), TextColumn("{task.description}"))  # 80 characters in all
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        total_s = schedule.passes * len(schedule.rates) * schedule.step_s
        self._task = self.progress.add_task("starting", total=total_s)

    def refresh(self, figures: Figures, now_s: float) -> None:
        """Show where the run is, and the TTFT of the last seconds."""
        if not figures.steps or not self._console.is_terminal:
            return
        step = figures.steps[-1].step
        before = step_number(step, self._schedule) - 1
        within_s = now_s - figures.step_began_s if figures.is_step_running else step.duration_s
        done_s = before * step.duration_s + min(within_s, step.duration_s)
        self.progress.update(
            self._task, completed=done_s, description=progress_text(figures, self._schedule.passes, now_s)
        )

    def step_ended(self, step: StepFigures) -> None:
        """Leave a line behind."""
        self._console.print(step_line(step, self._schedule), highlight=False, soft_wrap=True)


def plan_lines(schedule: Schedule, max_in_flight: int) -> list[str]:
    """Say how long the run takes, and what it does to the servers."""
    slowest, fastest = schedule.rates[0], schedule.rates[-1]
    total_s = schedule.passes * len(schedule.rates) * schedule.step_s
    time = f"{total_s:.0f} s" if total_s < 100 else f"{total_s / 60:.0f} min"
    passes = "1 pass" if schedule.passes == 1 else f"{schedule.passes} passes"
    return [
        f"{len(schedule.rates)} rates from {slowest:g} to {fastest:g} requests/s, {schedule.step_s:g} s each,"
        f" {passes}: {time}, and the time to drain after each pass.",
        f"Servers are driven past saturation, with up to {max_in_flight} requests in flight. All other"
        " requests to them will wait. Ctrl-C ends the run, and keeps the samples.",
    ]


def progress_text(figures: Figures, passes: int, now_s: float) -> str:
    """Return the present moment in one line."""
    step = figures.steps[-1].step
    doing = f"{step.rate:g}/s" if figures.is_step_running else "draining"
    return (
        f"{step.pass_number}/{passes} {doing}, in flight {figures.in_flight}, sent {figures.sent}, "
        f"TTFT p50/p99 {_seconds(figures.recent_ttfts_s(now_s), 50, 99)}, errors {figures.errors}"
    )


def step_number(step: Step, schedule: Schedule) -> int:
    """Return its place in the run, from 1 on."""
    return (step.pass_number - 1) * len(schedule.rates) + schedule.rates.index(step.rate) + 1


def step_line(step: StepFigures, schedule: Schedule) -> str:
    """Return the line of a step that has ended; TTFT is that of the requests that have ended."""
    extras = "".join(
        f", {count} {what}"
        for what, count in (("refused", step.refused), ("not sent", step.not_sent))
        if count
    )
    return (
        f"{step_number(step.step, schedule)} of {schedule.passes * len(schedule.rates)}, "
        f"{step.step.rate:g}/s: sent {step.sent}, "
        f"done {step.completed_per_s:.1f}/s, TTFT so far p50/p99 {_seconds(step.ttfts_s, 50, 99)}, "
        f"in flight up to {step.max_in_flight}, errors {step.errors}{extras}"
    )


_TROUBLES = {"errors": "errors", "refused": "refused", "aborted": "aborted", "unsent": "not_sent"}


def summary_table(figures: Figures) -> Group:
    """Return a row for each rate, all passes together; what never went wrong has no column."""
    steps = figures.by_rate()
    troubles = [title for title, name in _TROUBLES.items() if any(getattr(step, name) for step in steps)]
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("rate/s", "done/s", "sent", "p50", "p90", "p99", "max", "load", "running", *troubles):
        table.add_column(title, justify="right", no_wrap=True)
    for step in steps:
        ttfts = percentiles_s(step.ttfts_s, 50, 90, 99, 100)
        table.add_row(
            f"{step.step.rate:g}",
            f"{step.completed_per_s:.1f}",
            str(step.sent),
            *(("-",) * 4 if ttfts is None else (f"{seconds:.3g}" for seconds in ttfts)),
            str(step.max_in_flight),
            f"{step.max_running:g}",
            *(str(getattr(step, _TROUBLES[title])) for title in troubles),
        )
    return Group("TTFT in seconds; load and running are the most requests at once.", table)


def result_lines(result: ProfileResult, samples: Path) -> list[str]:
    """Say what the table leaves out: where the samples are, what went wrong, what the client itself cost."""
    figures = result.figures
    failures = sum((step.failures for step in figures.steps), start=Counter[str]())
    lines = [f"{figures.samples} samples of {figures.sent} requests for {result.model}, in {samples}"]
    if failures:
        lines.append(f"failures: {', '.join(f'{count} {kind}' for kind, count in failures.most_common())}")
    if figures.unplaced:
        lines.append(f"no sample of {figures.unplaced} answers that do not name their backend")
    if result.not_recorded:
        lines.append(f"{result.not_recorded} samples could not be written")
    lines.append(
        f"this process took {result.cpu_share:.0%} of a core, and sent at most "
        f"{figures.max_late_s * 1e3:.0f} ms late"
    )
    return lines


def _seconds(ttfts_s: list[float], *percents: float) -> str:
    values = percentiles_s(ttfts_s, *percents)
    return "-" if values is None else "/".join(f"{value:.3g}" for value in values) + " s"
