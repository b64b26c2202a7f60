"""When a backend is saturated, failing, unknown, and in which zone: the fleet's part of the configuration."""

from dataclasses import dataclass, field

from extproc.fleet.breaker import BreakerRule
from extproc.fleet.prediction_record import TrustRule
from extproc.fleet.saturation import SaturationRule
from extproc.fleet.waiting_time import WaitingRule


@dataclass(frozen=True, slots=True)
class FleetRules:
    """The rules of every backend; scrapes older than `stale_after_s` are no signal."""

    saturation: SaturationRule
    breaker: BreakerRule
    stale_after_s: float
    low_s: float
    medium_load: float
    trust: TrustRule
    waiting: WaitingRule = field(default_factory=WaitingRule)
