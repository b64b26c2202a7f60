"""The setting that every policy of an evaluation faces."""

from dataclasses import dataclass

from extproc.lab.evaluation.simulated_server import ServerSpec
from extproc.lab.evaluation.surroundings import Surroundings
from extproc.lab.rivals.layered import LayeredRules
from extproc.lab.traffic.arrivals import Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario(Surroundings):
    """The setting that every policy faces; `capacities_per_s` are the servers', in requests.

    `judged` is how many decisions of the layered policy at most are held against what the engines would
    really do (see `estimate_judge`).
    """

    servers: tuple[ServerSpec, ...]
    capacities_per_s: tuple[float, ...]
    traffic: Traffic
    layered: LayeredRules
    judged: int = 0
