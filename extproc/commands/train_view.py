"""The output of a training run: what it had, how good the model is, and the gate's verdict."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table

from extproc.learning.dataset import Dropped
from extproc.learning.fit import Training
from extproc.learning.training_quality import Route, RouteQuality, TrainingQuality

_UNKNOWN = "-"


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
    return Group(_samples(run), _zones(run.training.quality), _other_checks(run))


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
    table = Table(title="on the newest samples, which nothing was fitted to")
    for column in ("zone", "by", "samples", "median error", "within 20 %", "faster picked", "pairs"):
        table.add_column(column, justify="left" if column in {"zone", "by"} else "right")
    for zone, routes in quality.zones.items():
        _add_routes(table, zone.value, routes)
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
