"""CPU time of a small call: the best of many batches.

The work is the same every time, so whatever a batch takes longer than the best one is other programs' doing:
on shared cores even CPU time doubles when the neighbours are busy (https://docs.python.org/3/library/timeit.html).
"""

import time
from collections.abc import Callable

_BATCH_S = 0.02


def cpu_us(call: Callable[[], object], batches: int = 50) -> float:
    """CPU microseconds of one call, all threads of the process together; a batch takes about 20 ms."""
    call()
    started_ns = time.process_time_ns()
    call()
    calls = max(1, int(_BATCH_S * 1e9 / max(1, time.process_time_ns() - started_ns)))
    found = []
    for _ in range(batches):
        started_ns = time.process_time_ns()
        for _ in range(calls):
            call()
        found.append((time.process_time_ns() - started_ns) / calls / 1e3)
    return min(found)
