"""When a backend is saturated, failing, unknown, and in which zone: the fleet's part of the configuration."""

from dataclasses import dataclass, field

from extproc.fleet.breaker import BreakerRule
from extproc.fleet.prediction_record import TrustRule
from extproc.fleet.saturation import SaturationRule
from extproc.fleet.signals import ScrapeRule
from extproc.fleet.waiting_time import WaitingRule
from extproc.fleet.zone import ZoneRule


@dataclass(frozen=True, slots=True)
class FleetRules:
    """The rules of every backend; scrapes older than `stale_after_s` are no signal."""

    saturation: SaturationRule = field(default_factory=SaturationRule)
    breaker: BreakerRule = field(default_factory=BreakerRule)
    trust: TrustRule = field(default_factory=TrustRule)
    waiting: WaitingRule = field(default_factory=WaitingRule)
    stale_after_s: float = ScrapeRule().stale_after_s
    low_s: float = ZoneRule().low_s
    medium_load: float = ZoneRule().medium_load
