"""The sequences of `h2_frames`, with a coverage-guided fuzzer that draws the choices.

    pip install atheris
    PYTHONPATH=tests python -m fuzz.h2_coverage -runs=100000 -max_len=3000 -len_control=0

Arguments are libFuzzer's. A failing input is written to a file; given as an argument, that file runs again.
"""

import sys

import atheris

with atheris.instrument_imports(include=["extproc.h2", "hpack"]):
    from fuzz.h2_frames import run_sequence


class Drawn:
    """Choices out of the fuzzer's bytes; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = atheris.FuzzedDataProvider(data)

    def randrange(self, stop: int) -> int:
        return int(self._data.ConsumeIntInRange(0, stop - 1))

    def randbytes(self, n: int) -> bytes:
        return bytes(self._data.ConsumeBytes(n)).ljust(n, b"\0")


def one_input(data: bytes) -> None:
    run_sequence(Drawn(data))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
