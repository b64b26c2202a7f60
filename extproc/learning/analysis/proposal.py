"""The proposed configuration: where the guard should stand, and where the zones begin; and its effects.

A proposal must do no harm. `guard.max_active` is the load at which TTFT passes the guard's limit, and never
below what the server runs at once: a smaller one would refuse requests that are answered in time. It is one
number for all servers. Where they differ, or where no load seen came so far, it is `auto`, which finds each
server's own. `zones.low_s` is the 90 % quantile of TTFT at loads up to a quarter of the knee: what a
lightly loaded server shows. A setting that the samples do not support is left out, with the reason.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extproc.learning.analysis.knee import Knee
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES

AUTO = "auto"
MOST_LISTED = 8

_MIN_LIGHT = 30
_LOAD, _RUNNING = FEATURES.index("load"), FEATURES.index("num_running")

_USUAL_TOP = 0.99
"""Guessed: a gauge may jump once; what a server runs in one of a hundred requests it can run."""

_DIFFER = 1.25
"""Guessed: knees of equal servers differ by less than this from one recording to the next."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,63}")
_LONGEST_QUOTED = 40


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of configuration: `value` is None where none is proposed; `reason` says why, or from what.

    `effect` says what follows from the value.
    """

    stage: str
    field: str
    value: float | str | None
    reason: str
    effect: str = ""


@dataclass(frozen=True, slots=True)
class _Limit:
    """One server: how many requests it runs at once, and the load at which TTFT passes the guard's limit.

    That load is None where it was not seen.
    """

    name: str
    runs: int
    passed_at: float | None
    has_knee: bool

    @property
    def holds(self) -> int | None:
        """The most requests that it should hold."""
        return None if self.passed_at is None else max(self.runs, round(self.passed_at), 1)


def propose(observations: Observations, knees: Sequence[Knee], limit_s: float) -> tuple[Setting, ...]:
    """Propose settings of guard and zones, from each server's knee; `limit_s` is the guard's own."""
    max_active = _max_active(observations, knees, limit_s)
    if max_active.value is None:
        return max_active, Setting("zones", "low_s", None, f"without a knee ({max_active.reason})")
    return max_active, _low_s(observations, knees, limit_s)


def to_yaml(settings: Sequence[Setting]) -> str:
    """Write the settings as configuration, each with its reason and its effect as comments above it."""
    lines: list[str] = []
    for stage in dict.fromkeys(setting.stage for setting in settings):
        own = [setting for setting in settings if setting.stage == stage]
        has_values = any(setting.value is not None for setting in own)
        lines += [f"{stage}:"] if has_values else [f"# {stage}:"]
        for setting in own:
            if setting.value is None:
                lines.append(f"  # {setting.field}: not proposed: {setting.reason}")
            else:
                lines += [f"  # {text}" for text in (setting.reason, setting.effect) if text]
                lines.append(f"  {setting.field}: {_written(setting.value)}")
    return "\n".join(lines) + "\n"


def printable(name: str) -> str:
    """Return a name from a sample store on one line, quoted unless it is plain."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    return ascii(name if len(name) <= _LONGEST_QUOTED else name[:_LONGEST_QUOTED] + "...")


def _max_active(observations: Observations, knees: Sequence[Knee], limit_s: float) -> Setting:
    limits = [_limit(observations, knee) for knee in knees]
    if not any(limit.has_knee for limit in limits):
        reasons = sorted({knee.unstated for knee in knees if knee.unstated is not None})
        reason = reasons[0] if len(reasons) == 1 else "no server has a knee"
        return Setting("guard", "max_active", None, reason if reasons else "no usable samples")
    found = _listed(limits, limit_s)
    held = [limit.holds for limit in limits if limit.holds is not None]
    largest = max([*held, *(limit.runs for limit in limits)])
    if any(limit.has_knee and limit.holds is None for limit in limits) or largest > _DIFFER * min(held):
        reason = f"{found}. No single number fits"
        effect = "Effect: the sidecar finds the limit of each server while it serves, and follows it."
        return Setting("guard", "max_active", AUTO, reason, effect)
    beyond = float((observations.features[:, _LOAD] >= largest).mean())
    effect = (
        f"Effect: {beyond:.0%} of the recorded requests met such a load: they go elsewhere, or are refused."
        f" A request that would wait longer than {limit_s:g} s is refused in any case."
    )
    return Setting("guard", "max_active", largest, found, effect)


def _limit(observations: Observations, knee: Knee) -> _Limit:
    name = knee.backend or ""
    own = observations.backend == observations.fleet.index(name) if name in observations.fleet else []
    running = observations.features[own, _RUNNING]
    runs = round(float(np.quantile(running, _USUAL_TOP))) if len(running) else 0
    return _Limit(name, runs, knee.load_at_limit, knee.load is not None)


def _listed(limits: Sequence[_Limit], limit_s: float) -> str:
    texts = [
        f"{printable(limit.name)} runs {limit.runs} at once"
        + (
            ""
            if limit.passed_at is None
            else f", and its TTFT passes {limit_s:g} s at a load of {limit.passed_at:.0f}"
        )
        for limit in limits[:MOST_LISTED]
    ]
    more = [f"{len(limits) - MOST_LISTED} more"] if len(limits) > MOST_LISTED else []
    return "; ".join(texts + more)


def _low_s(observations: Observations, knees: Sequence[Knee], limit_s: float) -> Setting:
    # Each server by its own knee: the largest one says nothing of a small machine.
    knee_by_name = {knee.backend: knee.load for knee in knees if knee.load is not None}
    light_load = np.array([knee_by_name.get(name, -np.inf) / 4 for name in observations.fleet])
    is_light = observations.features[:, _LOAD] <= light_load[observations.backend]
    count = int(is_light.sum())
    if count < _MIN_LIGHT:
        reason = f"{count} requests at loads up to a quarter of the knee, at least {_MIN_LIGHT} are needed"
        return Setting("zones", "low_s", None, reason)
    low_s = float(f"{np.quantile(observations.ttft_s[is_light], 0.9):.2g}")
    if low_s >= limit_s:
        reason = f"TTFT is {low_s:g} s at light load already; the guard's limit is {limit_s:g} s"
        return Setting("zones", "low_s", None, reason)
    reason = f"90 % of TTFTs were below it at loads up to a quarter of the knee ({count} requests)"
    asked = float((observations.ttft_s >= low_s).mean())
    effect = (
        f"Effect: for {asked:.0%} of the recorded requests a model would be asked, if there is one."
        " `extproc train --config` takes this value over."
    )
    return Setting("zones", "low_s", low_s, reason, effect)


def _written(value: float | str) -> str:
    """Write a value without an exponent, which YAML would take for text."""
    return str(value) if isinstance(value, int | str) else np.format_float_positional(value, trim="0")
