"""A sleep that can be cut short, at no more cost than any other."""

import asyncio


class Pause:
    """The pauses of one task; cut short before it begins, the next one takes no time."""

    def __init__(self) -> None:
        self._is_cut = False
        self._over: asyncio.Future[None] | None = None

    async def wait(self, delay_s: float) -> None:
        """Wait for this time, or until `cut` is called."""
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        timer = loop.call_later(0.0 if self._is_cut else delay_s, self._end)
        try:
            await self._over
        finally:
            timer.cancel()
            self._over, self._is_cut = None, False

    def cut(self) -> None:
        """End the pause, or the next one where none is under way."""
        self._is_cut = True
        self._end()

    def _end(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
