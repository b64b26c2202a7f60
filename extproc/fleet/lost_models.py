"""Models whose server has left: it may come back, or another one be started."""

from collections.abc import Iterable

LOST_FOR_S = 900.0
"""Guessed: a server with a large model is back within a quarter of an hour, or it is gone for good."""

MAX_LOST_MODELS = 1024


class LostModels:
    """The models of backends that have left; of the last `MAX_LOST_MODELS`, since names come from servers."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def left(self, models: Iterable[str], now_s: float) -> None:
        """Note that a backend which served these has left."""
        for model in models:
            self._until_s.pop(model, None)
            self._until_s[model] = now_s + LOST_FOR_S
        while len(self._until_s) > MAX_LOST_MODELS:
            del self._until_s[next(iter(self._until_s))]

    def is_recent(self, model: str, now_s: float) -> bool:
        """Return whether a backend that served `model` has left within the last minutes."""
        return self._until_s.get(model, now_s) > now_s

    def __contains__(self, model: str) -> bool:
        """Return whether a backend that served `model` has left, however long ago."""
        return model in self._until_s
