"""The backends that discovery found last; an answer without any is doubted for a while.

Discovery that names nobody may be right: a headless service without ready pods. Or a selector was mistyped,
or a name server has lost its zone; then believing it would take every backend out at once. Keeping those
known costs nothing meanwhile: where they are gone indeed, the guard sees it and refuses. It has an end, since
addresses are given to others. Failures to get an answer are no answers, and change nothing however long they
last.
"""

from collections.abc import Iterable

from extproc.fleet.endpoint import Endpoint


class KnownBackends:
    """The set in force, at most `limit` of them. Times are seconds of one monotonic clock."""

    def __init__(self, empty_grace_s: float, limit: int, backends: Iterable[Endpoint] = ()) -> None:
        self.backends = tuple(backends)
        self.left_out = 0
        """How many of the last answer are too many."""
        self._empty_grace_s = empty_grace_s
        self._limit = limit
        self._empty_since_s: float | None = None

    @property
    def is_doubting(self) -> bool:
        """Whether the last answer named nobody, and those known before are kept."""
        return self._empty_since_s is not None

    def offer(self, backends: Iterable[Endpoint], now_s: float) -> bool:
        """Discovery has answered; True if the set in force is another one now.

        Of too many those stay that are in force.
        """
        known = {backend.name for backend in self.backends}
        found = sorted(backends, key=lambda backend: (backend.name not in known, backend.name))
        if not found and self.backends:
            self._empty_since_s = now_s if self._empty_since_s is None else self._empty_since_s
            return self.advance(now_s)
        self._empty_since_s = None
        self.left_out = max(0, len(found) - self._limit)
        return self._set(found[: self._limit])

    def advance(self, now_s: float) -> bool:
        """Let time pass; True if an answer without backends has lasted, and is in force from now on."""
        if self._empty_since_s is None or now_s - self._empty_since_s < self._empty_grace_s:
            return False
        self._empty_since_s = None
        return self._set([])

    def _set(self, backends: list[Endpoint]) -> bool:
        ordered = tuple(sorted(backends, key=lambda backend: backend.name))
        is_changed = ordered != self.backends
        self.backends = ordered
        return is_changed
