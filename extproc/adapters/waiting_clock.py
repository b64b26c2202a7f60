"""The clock of the waiting room: deadlines, and changes that are not reported to it."""

import asyncio
import time

from extproc.policy.queue.room import Room

RETRY_S = 0.05
"""Guessed: half a scrape's interval, and scrapes are late by several of them."""


async def keep_advancing(room: Room) -> None:
    """One timer for all who wait: at the next deadline, and `RETRY_S` later at the latest."""
    while True:
        now_s = time.monotonic()
        room.advance(now_s)
        deadline_s = room.next_deadline_s()
        await asyncio.sleep(RETRY_S if deadline_s is None else min(RETRY_S, deadline_s - now_s))
