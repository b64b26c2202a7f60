"""The proposed configuration: where the guard should stand, and where the zones begin.

`guard.max_active` is the knee: beyond it requests only wait. It is one number for all backends, so it is the
largest of their knees; `resume_active` is 80 % of it, as in the sidecar's default. `zones.low_s` is the 90 %
quantile of TTFT at loads up to a quarter of the knee: what a lightly loaded backend shows.
A setting that the samples do not support is left out, with the reason.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extproc.fleet.fleet_rules import RESUME_SHARE, SaturationRule
from extproc.learning.analysis.knee import Knee
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES

_MIN_LIGHT = 30
MOST_LISTED = 8
_LOAD = FEATURES.index("load")

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,63}")
_LONGEST_QUOTED = 40


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of configuration: `value` is None where none is proposed; `reason` says why, or from what."""

    stage: str
    field: str
    value: float | None
    reason: str


def propose(observations: Observations, knees: Sequence[Knee], limit_s: float) -> tuple[Setting, ...]:
    """Propose settings of guard and zones, from each backend's knee; `limit_s` is the guard's own."""
    max_active = _max_active(knees)
    if max_active.value is None:
        reason = f"without a knee ({max_active.reason})"
        rest = (("guard", "resume_active"), ("zones", "low_s"))
        return (max_active, *(Setting(*name, None, reason) for name in rest))
    load = SaturationRule().resumes_at(int(max_active.value))
    resume = Setting("guard", "resume_active", load, f"{100 * RESUME_SHARE:g} % of max_active")
    return max_active, resume, _low_s(observations, knees, limit_s)


def to_yaml(settings: Sequence[Setting]) -> str:
    """Write the settings as configuration, each with its reason as a comment above it."""
    lines: list[str] = []
    for stage in dict.fromkeys(setting.stage for setting in settings):
        own = [setting for setting in settings if setting.stage == stage]
        has_values = any(setting.value is not None for setting in own)
        lines += [f"{stage}:"] if has_values else [f"# {stage}:"]
        for setting in own:
            if setting.value is None:
                lines.append(f"  # {setting.field}: not proposed: {setting.reason}")
            else:
                lines += [f"  # {setting.reason}", f"  {setting.field}: {_number(setting.value)}"]
    return "\n".join(lines) + "\n"


def printable(name: str) -> str:
    """Return a name from a sample store on one line, quoted unless it is plain."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    return ascii(name if len(name) <= _LONGEST_QUOTED else name[:_LONGEST_QUOTED] + "...")


def _max_active(knees: Sequence[Knee]) -> Setting:
    found = [(knee.load, knee) for knee in knees if knee.load is not None]
    if not found:
        reasons = sorted({knee.unstated for knee in knees if knee.unstated is not None})
        reason = reasons[0] if len(reasons) == 1 else "no backend has a knee"
        return Setting("guard", "max_active", None, reason if reasons else "no usable samples")
    largest = max(load for load, _ in found)
    listed = [
        f"{printable(knee.backend or '')} {load:.0f} ({knee.low:.0f} to {knee.high:.0f})"
        for load, knee in found[:MOST_LISTED]
    ]
    more = [f"{len(found) - MOST_LISTED} more"] if len(found) > MOST_LISTED else []
    reason = f"the knee of TTFT over load, 95 % interval: {', '.join(listed + more)}"
    if len(found) > 1:
        reason += "; the largest of them"
    reason += (
        ". Beyond it requests only wait: a larger number has them wait in the backend, and not be refused"
    )
    return Setting("guard", "max_active", max(round(largest), 1), reason)


def _low_s(observations: Observations, knees: Sequence[Knee], limit_s: float) -> Setting:
    # Each backend by its own knee: the largest one says nothing of a small machine.
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
    return Setting("zones", "low_s", low_s, reason)


def _number(value: float) -> str:
    """Write a number without an exponent, which YAML would take for text."""
    return str(value) if isinstance(value, int) else np.format_float_positional(value, trim="0")
