"""What a scenario has shown, as text."""

from collections.abc import Sequence

from rich.table import Table

from benchmarks.ranking.arms import LAYERED, LEAST_REQUEST
from benchmarks.ranking.figures import TTFTS
from benchmarks.ranking.verdict import Comparison, Runs, compared, gains, median_of, ranking


def figures_table(title: str, real: Runs, draws: Sequence[Runs]) -> Table:
    """Every policy: medians over the seeds, real and predicted; in brackets the range of the draws."""
    table = Table(title=title)
    for column in ("policy", "", *(f"{name}, s" for name in TTFTS), "goodput", "refused", "failed"):
        table.add_column(column, justify="left" if column in {"policy", ""} else "right")
    for policy, runs in real.items():
        ttfts = [compared(median_of(figure, policy), real, draws) for figure in TTFTS.values()]
        goodput = compared(median_of(lambda run: run.goodput, policy), real, draws)
        lost = [sum(run.refused for run in runs), sum(run.failed for run in runs)]
        table.add_row(
            policy, "real", *(_seconds(one.real) for one in ttfts), f"{goodput.real:.1%}", *map(str, lost)
        )
        table.add_row(
            "",
            "predicted",
            *(f"{_seconds(one.predicted)} ({_seconds(one.low)} to {_seconds(one.high)})" for one in ttfts),
            f"{goodput.predicted:.1%} ({goodput.low:.1%} to {goodput.high:.1%})",
        )
    return table


def gain_lines(real: Runs, draws: Sequence[Runs]) -> list[str]:
    """The gain of the sidecar over LEAST_REQUEST, real and predicted."""
    lines = []
    for name, gain in gains(LAYERED, LEAST_REQUEST).items():
        found = compared(gain, real, draws)
        verdict = "within the noise" if found.is_within else "NOT WITHIN THE NOISE"
        lines.append(f"  {name:9} {_gain(found, name)}: {verdict}")
    return lines


def ranking_lines(real: Runs, draws: Sequence[Runs]) -> list[str]:
    """The order of the policies by p99 TTFT, as far as it could be predicted."""
    orders = ranking(real, draws, TTFTS["TTFT p99"])
    return [
        f"  {order.better} before {order.worse}: {'so it was' if order.is_kept else 'IT WAS NOT'}"
        for order in orders
    ] or ["  none could be predicted"]


def _gain(found: Comparison, name: str) -> str:
    if name == "goodput":
        return (
            f"{found.real * 100:+.1f} points, predicted {found.predicted * 100:+.1f} "
            f"({found.low * 100:+.1f} to {found.high * 100:+.1f})"
        )
    return f"{-found.real:+.0%}, predicted {-found.predicted:+.0%} ({-found.high:+.0%} to {-found.low:+.0%})"


def _seconds(value_s: float) -> str:
    return f"{value_s:.3g}" if value_s < 100 else f"{value_s:.0f}"
