"""Says in the log for which backends layer 2 stands down, and when it returns."""

import asyncio
import logging
import time
from collections.abc import Container

from extproc.adapters.condition_log import ConditionLog
from extproc.fleet.prediction_record import TrackRecord
from extproc.fleet.registry import Registry
from extproc.learning.model_in_use import ModelSlot

logger = logging.getLogger(__name__)

INTERVAL_S = 0.25


class DriftLog:
    """Looks at the running errors of the members."""

    def __init__(self, registry: Registry, models: ModelSlot, record: TrackRecord) -> None:
        self._registry = registry
        self._models = models
        self._record = record
        self._conditions = ConditionLog(logger, "layer2_stands_down", "layer2_returned")

    async def follow(self) -> None:
        """Look again and again."""
        while True:
            self.look(time.monotonic())
            await asyncio.sleep(INTERVAL_S)

    def keep_only(self, names: Container[str]) -> None:
        """Forget the backends that have left."""
        self._conditions.keep_only(names)

    def look(self, now_s: float) -> None:
        """Say what has changed, by `now_s` (monotonic seconds)."""
        model = self._models.current
        if model is None:
            return
        for member in self._registry.members:
            name = member.backend.name
            if self._record.is_trusted(member.slot, model.promised_error):
                self._conditions.holds(name=name)
            else:
                detail = f"{self._record.error(member.slot):.3f}, promised {model.promised_error:.3f}"
                self._conditions.failed(detail, now_s, name=name)
