import io
from pathlib import Path

import pytest
from rich.console import Console

from extproc.commands.profile_view import (
    ProfileView,
    plan_lines,
    progress_text,
    result_lines,
    step_line,
    summary_table,
)
from extproc.lab.load.completion import Reply
from extproc.lab.load.figures import Figures
from extproc.lab.load.profiler import ProfileResult
from extproc.lab.traffic.workload import Schedule, Step
from extproc.outcomes.outcome import Failure

SCHEDULE = Schedule((2.0, 16.0), 10.0, 4)


@pytest.fixture
def figures() -> Figures:
    figures = Figures()
    step = figures.begin(Step(3, 16.0, 10.0), now_s=0.0)
    figures.was_sent(7, running=5.0, late_s=0.004)
    for ttft_s in (0.25, 0.5, 12.0):
        figures.has_ended(step, Reply(status=200, ttft_s=ttft_s), is_refused=False, now_s=9.0)
    figures.has_ended(step, Reply(failure=Failure.CONNECT), is_refused=False, now_s=9.0)
    figures.has_ended(step, Reply(status=503), is_refused=True, now_s=9.0)
    step.not_sent = 4
    return figures


def shown(figures: Figures, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(summary_table(figures))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_plan_says_how_long_it_takes_and_how_hard_it_drives_the_servers() -> None:
    first, second = plan_lines(Schedule((0.5, 1.0, 32.0), 15.0, 4), max_in_flight=400)
    assert first.startswith("3 rates from 0.5 to 32 requests/s, 15 s each, 4 passes: 3 min, and")
    assert "up to 400 requests in flight" in second


def test_the_bar_says_where_the_run_is(figures: Figures) -> None:
    assert progress_text(figures, passes=4, now_s=10.0) == (
        "3/4 16/s, in flight 2, sent 7, TTFT p50/p99 0.5/11.8 s, errors 1"
    )
    figures.end(10.0)
    assert "draining" in progress_text(figures, passes=4, now_s=100.0)
    assert "p50/p99 -" in progress_text(figures, passes=4, now_s=100.0)


def test_a_step_is_one_line_that_says_how_many_there_are(figures: Figures) -> None:
    figures.end(10.0)
    assert step_line(figures.steps[0], SCHEDULE) == (
        "6 of 8, 16/s: sent 7, done 0.3/s, TTFT so far p50/p99 0.5/11.8 s, in flight up to 7, errors 1, "
        "1 refused, 4 not sent"
    )


def test_the_summary_has_one_row_for_each_rate_and_fits_a_terminal(figures: Figures) -> None:
    figures.end(10.0)
    figures.begin(Step(4, 2.0, 10.0), now_s=20.0)
    _, heads, slow, fast = shown(figures).splitlines()
    named = dict(zip(heads.split(), fast.split(), strict=True))
    assert slow.split()[:4] == ["2", "0.0", "0", "-"]
    assert named == {
        **{"rate/s": "16", "done/s": "0.3", "sent": "7", "p50": "0.5", "p90": "9.7", "p99": "11.8"},
        **{"max": "12", "load": "7", "running": "5", "errors": "1", "refused": "1", "unsent": "4"},
    }
    assert max(map(len, (heads, slow, fast))) <= 80


def test_the_summary_has_no_column_for_what_never_went_wrong() -> None:
    figures = Figures()
    figures.begin(Step(1, 2.0, 10.0), now_s=0.0)
    assert shown(figures).splitlines()[1].split() == (
        ["rate/s", "done/s", "sent", "p50", "p90", "p99", "max", "load", "running"]
    )


def test_what_went_wrong_is_said_in_words(figures: Figures) -> None:
    figures.samples, figures.unplaced = 4, 2
    result = ProfileResult(
        figures, "m", was_interrupted=False, ended_by=None, not_recorded=3, cpu_share=0.125
    )
    assert result_lines(result, Path("s.db")) == [
        "4 samples of 7 requests for m, in s.db",
        "failures: 1 connect",
        "no sample of 2 answers that do not name their backend",
        "3 samples could not be written",
        "this process took 12% of a core, and sent at most 4 ms late",
    ]


def test_without_a_terminal_there_is_no_bar_but_a_line_for_every_step(figures: Figures) -> None:
    console = Console(file=io.StringIO(), width=80)
    view = ProfileView(console, SCHEDULE)
    with view.progress:
        view.refresh(figures, now_s=5.0)
        view.step_ended(figures.steps[0])
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [step_line(figures.steps[0], SCHEDULE)]


def test_in_a_terminal_the_bar_moves_with_time(figures: Figures) -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    view = ProfileView(console, SCHEDULE)
    with view.progress:
        view.refresh(Figures(), now_s=0.0)
        view.refresh(figures, now_s=5.0)
        assert view.progress.tasks[0].completed == 2 * 20.0 + 10.0 + 5.0
        view.refresh(figures, now_s=500.0)
        assert view.progress.tasks[0].completed == 2 * 20.0 + 20.0
    assert isinstance(console.file, io.StringIO)
    assert "3/4 16/s" in console.file.getvalue()
