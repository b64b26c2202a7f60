"""The trainer's sign of life: a file beside the model file, which it touches and every sidecar looks at.

A trainer publishes nothing while its model is good enough, so the age of the model does not tell whether it
still runs. The two processes share nothing but files. The time is that of the file system (ctime).
"""

import asyncio
import time
from pathlib import Path

from extproc.adapters.files.file_watch import file_signature

TOUCHED_EVERY_S = 15.0
"""Guessed: far below the minutes after which a trainer counts as standing still."""


def sign_path(model_path: Path) -> Path:
    """Return the file's path: `zone2_predictor.json.trainer` beside `zone2_predictor.json`."""
    return model_path.with_name(f"{model_path.name}.trainer")


class TrainerSign:
    """Touches the file, at most every `TOUCHED_EVERY_S`."""

    def __init__(self, model_path: Path) -> None:
        self._path = sign_path(model_path)
        self._touched_s = -TOUCHED_EVERY_S

    def give(self) -> None:
        """Write the file, or its time, if it is time to; raises OSError where that is not possible."""
        now_s = time.monotonic()
        if now_s - self._touched_s >= TOUCHED_EVERY_S:
            self._touched_s = now_s
            self._path.touch()


class TrainerWatch:
    """Looks at the file; `seen_at_s` is the unix time of the last sign, None where there is none."""

    def __init__(self, model_path: Path) -> None:
        self._path = sign_path(model_path)
        self.seen_at_s: float | None = None

    async def follow(self) -> None:
        """Look for ever, off the event loop: a file system may hang."""
        while True:
            signature = await asyncio.to_thread(file_signature, self._path)
            self.seen_at_s = None if signature is None else signature[-1] / 1e9
            await asyncio.sleep(TOUCHED_EVERY_S)
