"""The output of a training run: what it had, how good the model is, and the gate's verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from extproc.fleet.zone import Zone
from extproc.learning.dataset import Dropped
from extproc.learning.fit import Training
from extproc.learning.training_quality import Route, RouteQuality, TrainingQuality

if TYPE_CHECKING:
    from extproc.commands.train import TrainOptions

_UNKNOWN = "-"

LITTLE_GAIN = 0.02
"""Guessed: with some hundreds of pairs, a smaller difference of two shares is within the noise."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A training, how many samples it had, and whether its model was written."""

    training: Training
    rows: int
    dropped: dict[Dropped, int]
    is_published: bool

    def document(self) -> dict[str, object]:
        """Return everything that is known of the run, except the trees."""
        return {
            "rows": self.rows,
            "dropped": self.dropped | dict(self.training.out_of_zone),
            "is_published": self.is_published,
            "manifest": self.training.model_file.manifest,
            "quality": self.training.quality,
        }


def describe(run: TrainingRun) -> Group:
    """Return all of it, as tables."""
    quality = run.training.quality
    return Group(Text(gain_sentence(quality)), _samples(run), _zones(quality), _other_checks(run))


def gain_sentence(quality: TrainingQuality) -> str:
    """Say how much better layer 2 would choose than the estimate alone, in the zone where it is asked."""
    routes = quality.zones[Zone.MEDIUM]
    model, estimate = (routes[route].pairwise_accuracy for route in (Route.MODEL, Route.ESTIMATE))
    if model is None or estimate is None:
        return (
            "Whether layer 2 would help is unknown: there are too few pairs of medium-zone requests on two"
            " backends. Record longer."
        )
    if model - estimate >= LITTLE_GAIN:
        verdict = "layer 2 helps here"
    else:
        verdict = "little to gain here" if model > estimate else "nothing to gain here"
    return (
        f"Layer 2 would pick the faster of two backends in {model:.1%} of the cases, the estimate alone in"
        f" {estimate:.1%}: {verdict}."
    )


def next_step(run: TrainingRun, options: "TrainOptions") -> Text:
    """Return the verdict, and the next command."""
    verdict, out = run.training.verdict, options.out
    if not run.is_published:
        return Text(
            f"Not published: {verdict.reason}. {out} is as it was, and there is nothing to do."
            f"\nNext, after more traffic: {options.command}"
        )
    forced = "" if verdict.is_accepted else f", although the gate refuses it ({verdict.reason})"
    published = f"Published: {out}{forced}. A sidecar that uses this file takes it over within 2 s."
    used = options.model_path()
    if used is None or used.absolute() == out.absolute():
        return Text(f"{published}\nNext: extproc status")
    return Text(f"{published} The one of {options.config} uses another.\nNext: cp {out} {used}")


def _samples(run: TrainingRun) -> Table:
    manifest = run.training.model_file.manifest
    table = Table(title=f"model {manifest.model_version}", show_header=False)
    table.add_row("samples read", str(run.rows))
    for reason, count in (run.dropped | dict(run.training.out_of_zone)).items():
        if count:
            table.add_row(f"  {reason.replace('_', ' ')}", str(count))
    table.add_row("trained on / held out", f"{manifest.samples.train} / {manifest.samples.held_out}")
    return table


def _zones(quality: TrainingQuality) -> Table:
    table = Table(title="on the newest samples, which nothing was fitted to", box=box.SIMPLE_HEAD)
    for column in ("zone", "by", "samples", "median error", "within 20 %", "faster picked", "pairs"):
        table.add_column(column, justify="left" if column in {"zone", "by"} else "right")
    seen = {zone: routes for zone, routes in quality.zones.items() if routes[Route.MODEL].samples}
    for zone, routes in seen.items():
        _add_routes(table, zone.value, routes)
    if len(seen) > 1:
        _add_routes(table, "all", quality.all_zones)
    return table


def _add_routes(table: Table, zone: str, routes: Mapping[Route, RouteQuality]) -> None:
    for route, of_route in routes.items():
        errors = of_route.errors
        table.add_row(
            zone if route is Route.MODEL else "",
            route.replace("_", " "),
            str(of_route.samples),
            _percent(None if errors is None else errors.median_relative),
            _percent(None if errors is None else errors.share_within_20_percent),
            _percent(of_route.pairwise_accuracy),
            str(of_route.pairs),
        )
    table.add_section()


def _other_checks(run: TrainingRun) -> Table:
    tuning, verdict = run.training.quality.tuning, run.training.verdict
    table = Table(show_header=False)
    table.add_row(f"best of {tuning.tried} settings", f"mean log error {tuning.error:.4f}")
    result = "accepted" if verdict.is_accepted else "refused"
    table.add_row("the gate", f"{result}: {verdict.reason}")
    table.add_row(
        "mean log error, corrected / the estimate alone", f"{verdict.error:.4f} / {verdict.plain_error:.4f}"
    )
    if verdict.incumbent_error is not None:
        table.add_row("mean log error, new / in use", f"{verdict.error:.4f} / {verdict.incumbent_error:.4f}")
    table.add_row("published", "yes" if run.is_published else "no")
    return table


def _percent(share: float | None) -> str:
    return _UNKNOWN if share is None else f"{share:.1%}"
