"""Metrics of a quiet day, a busy one, an overload and a sick backend, for the tests of the alerts.

`PYTHONPATH=tests python -m support.alert_series` records them anew, in half a minute. The source is the
evaluator: three simulated machines, the production core in virtual time, and the sidecar's own collector,
which reads the core every 30 s. Only what a rule reads is kept. On the busy day there is no model, as after
an installation. Neither the process nor Envoy is simulated.
"""

import asyncio
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import yaml
from support.evaluated_scenarios import MODEL_FILE, scenario, watched
from support.prometheus_rules import names, rules
from support.running_parts import Parts

from extproc.adapters.http.metrics import SidecarCollector
from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.rivals.layered import Layered, layered_rules
from extproc.lab.rivals.policy import Ended

DIRECTORY = Path(__file__).parents[1] / "deploy" / "series"
INTERVAL_S = 30.0
DURATION_S = 25 * 60.0
LOADS = {"quiet": 0.1, "busy": 0.75, "overload": 1.5, "sick": 0.4}
"""Of each series: the traffic, as a share of what the machines can answer."""
SICK, FAILS_EVERY = "sim-2", 6
"""Of this machine every sixth request fails, far below the failures in a row that trip the breaker."""

_READ = {name for rule in rules() for name in names(rule.expression) if name.startswith("extproc_")}


class Recorded(Layered):
    """The production policy, whose metrics are read at fixed times."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.series: dict[str, list[float | None]] = {}
        self._runtime = replace(Parts().runtime, core=self.core)
        self._reads = 0

    def scraped(self, *arguments: Any) -> None:
        """Read the metrics when it is time to: machines are scraped more often than that."""
        super().scraped(*arguments)
        while self._reads * INTERVAL_S <= arguments[-1]:
            self._read(self._reads * INTERVAL_S)
            self._reads += 1

    def _read(self, now_s: float) -> None:
        with patch.object(time, "monotonic", return_value=now_s):
            metrics = list(SidecarCollector(self._runtime).collect())
        for sample in (sample for metric in metrics for sample in metric.samples if sample.name in _READ):
            labels = {"job": "extproc", "instance": "a", **sample.labels}
            selector = ", ".join(f'{label}="{value}"' for label, value in labels.items())
            values = self.series.setdefault(f"{sample.name}{{{selector}}}", [])
            values += [None] * (self._reads - len(values)) + [round(sample.value, 3)]


class RecordedSick(Recorded):
    """The same, with a machine that fails now and then."""

    def ended(self, request: Ended, now_s: float) -> None:
        """Have one request of some fail, of those that the sick machine got."""
        is_sick = self._endpoints[request.backend].name == SICK and not request.request_id % FAILS_EVERY
        super().ended(msgspec.structs.replace(request, is_failed=True) if is_sick else request, now_s)


def recorded(name: str) -> dict[str, str]:
    """Return the series by their selectors, in promtool's notation."""
    scene: Scenario = scenario("local", load=LOADS[name], duration_s=DURATION_S)
    rules_in_use = layered_rules({}, None if name == "busy" else MODEL_FILE.read_bytes())
    kind = RecordedSick if name == "sick" else Recorded
    _, (policy,) = watched(kind, replace(scene, layered=rules_in_use))
    reads = max(map(len, policy.series.values()))
    return {
        selector: _notation(values + [None] * (reads - len(values)))
        for selector, values in sorted(policy.series.items())
    }


def _notation(values: list[float | None]) -> str:
    """Return the values as promtool has them, equal ones in a row as one; a series that ends is `stale`."""
    words: list[str] = []
    for value, group in groupby(values):
        times = len(list(group))
        if value is None:
            words += ["stale"] if words else []
            gap = times - len(words[-1:])
            words += [f"_x{gap}"] if gap else []
        else:
            words.append(f"{value:g}" if value % 1 else str(int(value)))
            words[-1] += f"x{times - 1}" if times > 1 else ""
    return " ".join(words)


async def record() -> None:
    """Write all series. The parts of a sidecar have to be made within an event loop."""
    for name in LOADS:
        text = yaml.safe_dump(recorded(name), width=1_000_000)
        (DIRECTORY / f"{name}.yml").write_text("# Written by tests/support/alert_series.py.\n" + text)


if __name__ == "__main__":
    asyncio.run(record())
