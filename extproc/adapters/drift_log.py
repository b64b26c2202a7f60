"""Says in the log for which backends layer 2 stands down, and when it returns."""

import asyncio
import logging
import time
from collections.abc import Container

from extproc.adapters.condition_log import ConditionLog
from extproc.routing.core import Core

logger = logging.getLogger(__name__)

INTERVAL_S = 0.25


class DriftLog:
    """Looks at how the model does about each member."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._conditions = ConditionLog(logger, "model_distrusted", "model_trusted")

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
        model = self._core.model.current
        if model is None:
            return
        for backend in self._core.registry.members:
            record = backend.predictions
            if record.is_trusted:
                self._conditions.holds(name=backend.name)
            elif record.error is not None and record.plain_error is not None and record.is_judged:
                detail = f"{record.error:.3f}, the estimate alone {record.plain_error:.3f}"
                self._conditions.failed(detail, now_s, name=backend.name)
