"""The options of commands that look at samples by zone: which times are of the medium zone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.config.options import option
from extproc.errors import ConfigError

if TYPE_CHECKING:
    from extproc.learning.features import ZoneBounds


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneOptions:
    """The bounds of the medium zone, and the configuration that they are taken from."""

    config: Path | None = option(
        None,
        "Configuration file of the sidecar, for zones.low_s and guard.max_predicted_ttft_s.",
        metavar="FILE",
    )
    low_s: float | None = option(
        None,
        "TTFT at which the medium zone begins, in seconds.",
        show_default="that of --config, else 1.0",
    )
    saturated_s: float = option(10.0, "TTFT at which the medium zone ends, in seconds.")

    def read(self) -> "tuple[ZoneBounds, float]":
        """Return the medium zone, and the guard's limit of the wait in seconds.

        Raises ConfigError where the zone ends before it begins, or the file cannot be used.
        """
        from extproc.config.stages import load_config
        from extproc.fleet.fleet_rules import WaitingRule
        from extproc.learning.features import DEFAULT_ZONE, ZoneBounds

        low_s, limit_s = DEFAULT_ZONE.low_s, WaitingRule().burst_s
        if self.config is not None:
            config = load_config(self.config)
            low_s, limit_s = config.zones.low_s, config.guard.max_predicted_ttft_s
        low_s = low_s if self.low_s is None else self.low_s
        if not 0 < low_s < self.saturated_s:
            raise ConfigError(
                f"the medium zone begins at {low_s:g} s: expected above 0, and below --saturated-s"
            )
        return ZoneBounds(low_s, self.saturated_s), limit_s
