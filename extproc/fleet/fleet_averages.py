"""Values that all backends of a fleet share: averages that newcomers begin with, and those to be watched."""

from collections.abc import Set
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING

from extproc.fleet.pace import UNKNOWN, Pace, PaceLearning
from extproc.fleet.slow_start import SlowStart

if TYPE_CHECKING:
    from extproc.fleet.backend import Backend


@dataclass(slots=True)
class FleetAverages:
    """Values of the whole fleet: a new backend starts with them, and its own are drawn towards them.

    `usual_places` is the median of how many requests backends are sure to run at once: one that lies about
    its own tells nothing of the others'. `placed` requests were placed on its `members` so far; those of them
    that are `unheard` are due for one, by the length of their silence, and those that are `starting` have a
    window. Where one of them has adapters, `has_adapters` from then on.
    """

    usual_places: float = 0.0
    pace: Pace = UNKNOWN
    pace_learning: PaceLearning = field(default_factory=PaceLearning)
    members: int = 0
    placed: int = 0
    has_adapters: bool = False
    unheard: "dict[Backend, None]" = field(default_factory=dict)
    starting: "dict[Backend, SlowStart]" = field(default_factory=dict)
    _sure_places: dict[object, float] = field(default_factory=dict)

    def learn_places(self, backend: object, places: float) -> None:
        """Note how many requests a backend is sure to run at once."""
        if self._sure_places.get(backend) != places:
            self._sure_places[backend] = places
            self.usual_places = median_low(self._sure_places.values())

    def drop(self, gone: Set["Backend"]) -> None:
        """Forget backends that have left."""
        self._sure_places = {each: places for each, places in self._sure_places.items() if each not in gone}
        self.usual_places = median_low(self._sure_places.values()) if self._sure_places else 0.0
        for backend in gone:
            self.unheard.pop(backend, None)
            self.starting.pop(backend, None)
