"""The events of a simulation that are still to come, by time."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from extproc.lab.evaluation.simulated_server import Server


class EventCalendar:
    """Events in the order of time; those of one moment in the order in which they were planned.

    An event is a server, whose run ends then and which `end_run` gets, or is called with its time.
    """

    def __init__(self, end_run: Callable[[Server, float], None]) -> None:
        self._end_run = end_run
        self._events: list[tuple[float, int, Server | Callable[[float], None]]] = []
        self._order = count()

    @property
    def next_s(self) -> float:
        """The time of the next event, of which there has to be one."""
        return self._events[0][0]

    def plan(self, at_s: float, event: Server | Callable[[float], None]) -> None:
        """Have something happen at a time."""
        heappush(self._events, (at_s, next(self._order), event))

    def catch_up(self, until_s: float) -> None:
        """Handle all events before that time."""
        events = self._events
        while events and events[0][0] < until_s:
            now_s, _, event = heappop(events)
            if isinstance(event, Server):
                self._end_run(event, now_s)
            else:
                event(now_s)
