"""Starts a process again whenever it ends, after a pause that doubles each time, within limits."""

from extproc.lab.local_stack.child_process import ChildProcess

SHORTEST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
HEALTHY_AFTER_S = 30.0
"""All guessed: a crash costs next to nothing, a crash loop does not fill the terminal."""


class ChildRestart:
    """Keeps one process alive; `now_s` is of one monotonic clock."""

    def __init__(self, child: ChildProcess, now_s: float) -> None:
        self._child = child
        self._started_s = now_s
        self._due_s: float | None = None
        self._next_pause_s = SHORTEST_PAUSE_S

    def tend(self, now_s: float) -> str | None:
        """Start it where that is due; what has happened to it, in words, where it has just ended."""
        if self._due_s is None:
            return self._bury(now_s)
        if now_s >= self._due_s:
            self._child.start()
            self._started_s, self._due_s = now_s, None
        return None

    def _bury(self, now_s: float) -> str | None:
        ending = self._child.ending()
        if ending is None:
            return None
        if now_s - self._started_s >= HEALTHY_AFTER_S:
            self._next_pause_s = SHORTEST_PAUSE_S
        pause_s, self._next_pause_s = self._next_pause_s, min(LONGEST_PAUSE_S, self._next_pause_s * 2)
        self._due_s = now_s + pause_s
        return f"{ending}, and is restarted in {pause_s:g} s"
