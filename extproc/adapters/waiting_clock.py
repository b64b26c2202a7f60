"""The clock of the waiting room: deadlines, and changes that are not reported to it."""

import asyncio
import time

from extproc.routing.queue.request_queue import RequestQueue


async def keep_advancing(room: RequestQueue) -> None:
    """One timer for all who wait."""
    while True:
        now_s = time.monotonic()
        room.advance(now_s)
        await asyncio.sleep(room.due_s(now_s) - now_s)
