"""One target of `fuzz.targets`, with a coverage-guided fuzzer that writes the input.

    pip install atheris
    PYTHONPATH=tests python -m fuzz.parsers body tests/fuzz/corpus/body -runs=100000

Arguments after the target are libFuzzer's. A failing input is written to a file; given as an argument in
place of the directory, that file runs again. An input that takes more than a second of CPU is a failure, too:
the fuzzer's own limit is one of time, which other processes use up.
"""

import sys
import time

import atheris

NOT_GUIDING = [
    "extproc.adapters.protos",  # generated
    "extproc.h2",  # fuzzed by `fuzz.h2_coverage`
    # They compare numpy's arrays, and atheris 3.0 leaks each array that instrumented code compares.
    "extproc.request.condense",
    "extproc.request.literal",
    "extproc.request.mending",
]

with atheris.instrument_imports(include=["extproc"], exclude=NOT_GUIDING):
    from fuzz.sidecar_parts import hear_only_faults
    from fuzz.targets import TARGETS

MAX_CPU_S = 1.0


def fuzz(name: str, arguments: list[str]) -> None:
    """Run the target until libFuzzer ends the process."""
    target = TARGETS[name]
    slowest_s = 0.01

    def one_input(data: bytes) -> None:
        nonlocal slowest_s
        started_s = time.thread_time()
        target(data)
        spent_s = time.thread_time() - started_s
        assert spent_s < MAX_CPU_S, f"{spent_s:.2f} s of CPU"
        if spent_s > slowest_s:
            slowest_s = spent_s
            print(f"slowest_cpu_ms: {spent_s * 1e3:.0f}", file=sys.stderr)

    hear_only_faults()
    # The fuzzer starts itself again where it merges inputs, by a shell.
    atheris.Setup([f"{sys.executable} -m fuzz.parsers {name}", *arguments], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz(sys.argv[1], sys.argv[2:])
