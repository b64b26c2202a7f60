"""Waiting for what other processes do, with an end."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

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
            await asyncio.sleep(0.005)


async def until_state(
    read: Callable[[], Awaitable[dict[str, Any]]],
    is_so: Callable[[dict[str, Any]], object],
    log: Callable[[], str],
    patience_s: float = PATIENCE_S,
) -> dict[str, Any]:
    """Wait until a sidecar's state is as wanted, and return it; where it never is, the log says why."""
    state: dict[str, Any] = {}
    try:
        async with asyncio.timeout(patience_s):
            while True:
                try:
                    state = await read()
                    if is_so(state):
                        return state
                except (aiohttp.ClientError, json.JSONDecodeError):
                    pass  # the sidecar is not there (yet)
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not as wanted after {patience_s} s: {state}\n{log()}") from None
