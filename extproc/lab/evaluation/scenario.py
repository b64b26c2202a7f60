"""The setting that every policy of an evaluation faces."""

from dataclasses import dataclass

from extproc.lab.evaluation.nuisances import NO_NUISANCES, Nuisances
from extproc.lab.evaluation.simulated_server import ServerSpec
from extproc.lab.rivals.layered import LayeredRules
from extproc.lab.traffic.arrivals import Traffic

DELAY_LIMIT_S = 2.0
"""Guessed: a first token that is so much later than it might have been is felt as late."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """The setting that every policy faces; `capacities_per_s` are the servers', in requests.

    Requests that arrive before `from_s` are served, but in no figure. With `is_estimate_judged` some
    decisions of the layered policy are held against what the engines would really do (see `estimate_judge`).
    """

    servers: tuple[ServerSpec, ...]
    capacities_per_s: tuple[float, ...]
    traffic: Traffic
    routers: int
    scrape_interval_s: float
    gauge_delay_s: float
    slo_s: float
    layered: LayeredRules
    delay_limit_s: float = DELAY_LIMIT_S
    from_s: float = 0.0
    is_estimate_judged: bool = False
    nuisances: Nuisances = NO_NUISANCES
