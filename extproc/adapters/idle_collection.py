"""The garbage collector's passes, made while the event loop has nothing to do, and so before they are due.

Requests leave hardly any garbage that only the collector finds, but it counts what they allocate, and would
make its passes in the midst of them. Objects that live as long as the process are never looked at.
"""

import asyncio
import gc
import time

PAUSE_S = 0.05
_WORTH_A_PASS = 1000
"""Guessed: a pass over this many new objects takes 0.2 ms."""
_IDLE_TURN_S = 1e-4
"""Guessed: a turn of the loop in which a request was handled takes longer."""
_PASSES_PER_OLDER_ONE = 20
_WHOLE_EVERY_S = 3600.0
"""Guessed: a pass over everything takes tens of milliseconds."""
_MOST_NEW, _NEVER = 50_000, 1_000_000
"""Measured: without an idle moment a pass comes after this many new objects, some 10 ms long."""


def freeze_startup_objects() -> None:
    """Take all objects of now out of the collector, and leave the passes to `collect_when_idle`."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_MOST_NEW, _PASSES_PER_OLDER_ONE, _NEVER)


async def collect_when_idle() -> None:
    """Make a pass whenever it is worth one and the loop is idle; older objects are looked at more rarely."""
    passes, whole_at_s = 0, time.monotonic()
    while True:
        await asyncio.sleep(PAUSE_S)
        if gc.get_count()[0] < _WORTH_A_PASS or not await _is_idle():
            continue
        passes += 1
        if time.monotonic() - whole_at_s >= _WHOLE_EVERY_S:
            gc.collect()
            whole_at_s = time.monotonic()
        else:
            gc.collect(0 if passes % _PASSES_PER_OLDER_ONE else 1)


async def _is_idle() -> bool:
    """Return whether a turn of the loop goes by without work."""
    begun_s = time.perf_counter()
    await asyncio.sleep(0)
    return time.perf_counter() - begun_s < _IDLE_TURN_S
