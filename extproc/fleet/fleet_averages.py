"""Values that all backends of a fleet share: averages that newcomers begin with, and those to be watched."""

from collections.abc import Set
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING

from extproc.fleet.pace import UNKNOWN, Pace, PaceLearning
from extproc.fleet.slow_start import SlowStart
from extproc.fleet.usual_prompt import UsualPrompt

if TYPE_CHECKING:
    from extproc.fleet.backend import Backend


@dataclass(slots=True)
class Watched:
    """The few backends that are treated otherwise than their estimate says.

    `placed` requests were placed on the fleet's `members` so far. Those that are `unheard` are due for one,
    by the length of their silence, and those that are `starting` have a window.
    """

    members: int = 0
    placed: int = 0
    unheard: "dict[Backend, None]" = field(default_factory=dict)
    starting: "dict[Backend, SlowStart]" = field(default_factory=dict)

    def chosen(self, backend: "Backend", now_s: float) -> None:
        """Note that a backend gets a request: as a try, or for its own sake."""
        self.placed += 1
        is_try = backend in self.unheard
        self.unheard.pop(backend, None)
        backend.silence.chosen(now_s, is_try=is_try)

    def review(self, backend: "Backend", now_s: float) -> None:
        """Note whether a backend is due for a request, or has started."""
        if backend in self.starting and self.starting[backend].is_over(now_s):
            del self.starting[backend]
        self.unheard.pop(backend, None)
        if backend.own == 0 and backend.silence.is_over(now_s, self.placed, self.members):
            self.unheard[backend] = None  # at the end: those before it may not be candidates of any request

    def drop(self, gone: Set["Backend"]) -> None:
        """Forget backends that have left."""
        for backend in gone:
            self.unheard.pop(backend, None)
            self.starting.pop(backend, None)


@dataclass(slots=True)
class FleetAverages:
    """Values of the whole fleet: a new backend starts with them, and its own are drawn towards them.

    `usual_places` is the median of how many requests backends are sure to run at once: one that lies about
    its own tells nothing of the others'. Where one of them has adapters, `has_adapters` from then on.
    """

    usual_places: float = 0.0
    pace: Pace = UNKNOWN
    pace_learning: PaceLearning = field(default_factory=PaceLearning)
    usual_prompt: UsualPrompt = field(default_factory=UsualPrompt)
    has_adapters: bool = False
    watched: Watched = field(default_factory=Watched)
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
        self.watched.drop(gone)
