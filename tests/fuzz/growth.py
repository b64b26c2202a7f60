"""How much memory a target keeps: a process that has read all sorts of things must not have become larger.

    PYTHONPATH=tests python -m fuzz.growth body tests/fuzz/corpus/body

Inputs of a directory are read again and again, each changed in some places. The first half of the runs fills
what is bounded (caches, windows, pools of the allocator); printed is what the second half adds, in MiB.
"""

import os
import random
import sys
from pathlib import Path

from fuzz.sidecar_parts import hear_only_faults
from fuzz.targets import TARGETS, Target

RUNS = 4000


def grown_mib(target: Target, inputs: list[bytes], runs: int = RUNS) -> float:
    """What the second half of the runs has added."""
    dice = random.Random(0)
    half_way_kib = 0
    for number in range(runs):
        if number == runs // 2:
            half_way_kib = _resident_kib()
        changed = bytearray(dice.choice(inputs) or b"\0")
        for _ in range(dice.randrange(4)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        target(bytes(changed))
    return (_resident_kib() - half_way_kib) / 1024


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") // 1024


if __name__ == "__main__":
    hear_only_faults()
    print(
        grown_mib(TARGETS[sys.argv[1]], [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())])
    )
