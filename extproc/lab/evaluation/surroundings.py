"""The surroundings of an evaluation's policies: scrapes, limits of clients, and nuisances."""

from dataclasses import dataclass, fields
from typing import Any

from extproc.lab.evaluation.nuisances import NO_NUISANCES, Nuisances


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The surroundings of all policies alike.

    By default servers are scraped as often as a sidecar scrapes busy ones; the other numbers are guessed.

    Requests that arrive before `from_s` are served, but in no figure. A first token within `slo_s` is in
    time, and one at most `delay_limit_s` later than it might have been is good.
    """

    routers: int = 1
    scrape_interval_s: float = 0.1
    gauge_delay_s: float = 0.3
    slo_s: float = 2.0
    delay_limit_s: float = 2.0
    from_s: float = 0.0
    nuisances: Nuisances = NO_NUISANCES

    def surroundings(self) -> dict[str, Any]:
        """Return the fields of this class alone, by name, for another class that has them too."""
        return {each.name: getattr(self, each.name) for each in fields(Surroundings)}


USUAL = Surroundings()
