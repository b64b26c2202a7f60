"""Waiting for what other processes do, with an end."""

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 60.0


def wait_until(
    is_so: Callable[[], object], what: str = "the condition", patience_s: float = PATIENCE_S
) -> None:
    """Return when the condition holds."""
    ends_s = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < ends_s, f"waited in vain for {what}"
        time.sleep(0.02)


async def until(is_so: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait in a coroutine until the condition holds."""
    async with asyncio.timeout(patience_s):
        while not is_so():
            await asyncio.sleep(0.01)
