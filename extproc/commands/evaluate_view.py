"""The output of `extproc evaluate`: a bar while it runs, then a table."""

from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.over_seeds import Evaluation, PolicySummary, Spread
from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.evaluation.scenario import Scenario

_NONE = "-"


def runs_with_progress(
    scenario: Scenario,
    policies: Sequence[str],
    seeds: Sequence[int],
    duration_s: float,
    console: Console,
    end_run: Callable[[], None] = lambda: None,
) -> tuple[PolicyRun, ...]:
    """Evaluate each policy on each seed, and call `end_run` after each; in a terminal a bar shows how far it
    is."""
    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"), TimeRemainingColumn())
    runs: list[PolicyRun] = []
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=duration_s * len(policies) * len(seeds))

        def report(done_s: float, now_s: float) -> None:
            progress.update(task, completed=done_s + now_s)

        for policy in policies:
            for number, seed in enumerate(seeds, start=1):
                done_s = len(runs) * duration_s
                progress.update(task, completed=done_s, description=f"{policy}, seed {number}")
                runs.append(evaluate(scenario, policy, seed, partial(report, done_s)))
                end_run()
    return tuple(runs)


def heading(evaluation: Evaluation) -> str:
    """Say in two lines what was evaluated."""
    seeds = len({run.seed for run in evaluation.runs})
    requests = sum(run.requests for run in evaluation.runs)
    model = evaluation.model_version or "none"
    return (
        f"fleet {evaluation.fleet}, {evaluation.capacity_per_s:.2f} requests/s; "
        f"workload {evaluation.workload}\n"
        f"{seeds} seed(s), {requests:,} requests in all, {evaluation.routers} router(s), scrapes every "
        f"{evaluation.scrape_interval_s:g} s, {evaluation.gauge_delay_s:g} s late; model {model}"
        + (f"; counted from {evaluation.from_s:g} s on" if evaluation.from_s else "")
        + "".join(f"; {name}" for name in evaluation.nuisances.names())
    )


def comparison_table(evaluation: Evaluation) -> Table:
    """Return a row for each policy: medians over seeds, with the smallest and the largest value below.

    It fits into 80 columns. Everything else is on the page and in the JSON.
    """
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("policy", no_wrap=True)
    has_failures = any(run.failed for run in evaluation.runs)
    for title in (
        "TTFT p50\ns",
        "p99\ns",
        "delay p99\ns",
        "good",
        f"within\n{evaluation.slo_s:g} s",
        "refused",
        *(("failed",) if has_failures else ()),
    ):
        table.add_column(title, justify="right", no_wrap=True)
    is_spread = len({run.seed for run in evaluation.runs}) > 1
    for summary in evaluation.policies:
        table.add_row(summary.policy, *row_texts(summary, is_spread=is_spread, has_failures=has_failures))
    return table


def row_texts(summary: PolicySummary, *, is_spread: bool, has_failures: bool) -> tuple[str, ...]:
    """Return the figures of one policy; with `is_spread` they have two lines."""
    times = (summary.ttft_p50_s, summary.ttft_p99_s, summary.delay_p99_s)
    failed = (summary.failed_share,) if has_failures else ()
    shares = (summary.good, summary.goodput, summary.refused_share, *failed)
    return (
        *(
            _NONE if time is None else _lines(time, _seconds(time), _short_seconds, is_spread)
            for time in times
        ),
        *(_lines(share, f"{share.median:.1%}", "{:.0%}".format, is_spread) for share in shares),
    )


def remarks(evaluation: Evaluation) -> list[str]:
    """Return lines for each layered policy: which layers decided, and how well its estimate predicted; and
    for each policy whose clients sent requests again: what became of these; and where servers have places for
    adapters how many requests waited for one, and how balanced the servers were.
    """
    layered = [_remark(summary) for summary in evaluation.policies if summary.layer_shares]
    retried = [_retried(summary) for summary in evaluation.policies if summary.retried_given_up_share]
    return layered + retried + [_adapters(each) for each in evaluation.policies if each.adapter_waits_share]


def _adapters(summary: PolicySummary) -> str:
    waits, imbalance = summary.adapter_waits_share, summary.imbalance
    assert waits is not None
    assert imbalance is not None
    return (
        f"{summary.policy}: {waits.median:.1%} of the requests waited for a place for their adapter; "
        f"the servers' shares differ by up to {imbalance.median:.1%} from the mean"
    )


def _retried(summary: PolicySummary) -> str:
    given_up, tries = summary.retried_given_up_share, summary.attempts_per_answer
    p50_s, p90_s = summary.retried_ttft_p50_s, summary.retried_ttft_p90_s
    gave_up = "" if given_up is None else f"{given_up.median:.1%} of those who came back gave up"
    answered = (
        ""
        if p50_s is None or p90_s is None
        else (f"; the others' first token came after {p50_s.median:.3g} s (p90 {p90_s.median:.3g})")
    )
    attempts = "" if tries is None else f"; {tries.median:.2f} attempts for an answer"
    return f"{summary.policy}: {gave_up}{answered}{attempts}"


def _remark(summary: PolicySummary) -> str:
    layers = ", ".join(f"{layer} {share:.1%}" for layer, share in summary.layer_shares.items())
    accuracy, error = summary.pairwise_accuracy, summary.estimate_error
    judged = "" if accuracy is None else f"; estimate: {accuracy.median:.1%} of pairs in the right order"
    judged += "" if error is None else f", median error {error.median:.0%}"
    return f"{summary.policy}: decided by {layers}{judged}"


def _lines(spread: Spread, median: str, end: Callable[[float], str], is_spread: bool) -> str:
    return f"{median}\n{end(spread.low)}-{end(spread.high)}" if is_spread else median


def _seconds(spread: Spread) -> str:
    return f"{spread.median:.3g}" if spread.median < 100 else f"{spread.median:.0f}"


def _short_seconds(seconds: float) -> str:
    text = f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"
    return text.removeprefix("0") if text.startswith("0.") else text
