"""A file of requests while it is read: its lines, and its requests in columns; what is held is bounded."""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from extproc.errors import ConfigError
from extproc.lab.traffic.trace import Prefixes, Trace
from extproc.lab.traffic.workload import MAX_TOKENS

MAX_LINE_CHARACTERS = 1 << 20
"""Guessed: 30 times the longest line of a published trace."""


class TextLines:
    """An iterator over lines, each with its end; `number` is that of the newest one, from 1 on."""

    def __init__(self, name: str, file: TextIO) -> None:
        self.name = name
        self.number = 0
        self._file = file
        self._again: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if (line := self._again) is not None:
            self._again = None
            return line
        line = self._file.readline(MAX_LINE_CHARACTERS)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == MAX_LINE_CHARACTERS and not line.endswith("\n"):
            raise self.fault(f"longer than {MAX_LINE_CHARACTERS} characters")
        return line

    def peek(self) -> str:
        """Return the next line that is not blank, and leave it to be read; an empty text at the end."""
        self._again = next((line for line in self if not line.isspace()), None)
        return self._again or ""

    def fault(self, text: str) -> ConfigError:
        """Return an error about the newest line."""
        return ConfigError(f"{self.name}, line {self.number}: {text}")


@contextmanager
def text_lines(name: str) -> Iterator[TextLines]:
    """Open a file; ConfigError, with its name, where it cannot be read, also within the block."""
    try:
        with Path(name).open(encoding="utf-8-sig", newline="") as file:
            yield TextLines(name, file)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: cannot be read: it is no text in UTF-8: {error.reason}") from error


MAX_REQUESTS = 2_000_000
"""Guessed: above the 1.4 million of BurstGPT; 50 MB."""
_MAX_TIME = 1e17
"""In microseconds, 3,000 years; two times that far apart still differ exactly to a hundredth of a second."""


@dataclass(slots=True, eq=False)
class TraceColumns:
    """One entry for each request, in the order of the file; `at` is in any unit, from any origin.

    `failures` counts the requests of the file that were not answered, which have no entry. `is_cut` is set
    where the file goes on.
    """

    at: "array[float]" = field(default_factory=lambda: array("d"))
    prompt_tokens: "array[int]" = field(default_factory=lambda: array("q"))
    output_tokens: "array[int]" = field(default_factory=lambda: array("q"))
    failures: int = 0
    is_cut: bool = False

    @property
    def is_full(self) -> bool:
        """Whether no more requests are held."""
        return len(self.at) == MAX_REQUESTS

    def add(self, at: float, prompt_tokens: int, output_tokens: int) -> None:
        """Add a request; a length of 0 counts as 1. Raises ValueError for what cannot be."""
        if not abs(at) <= _MAX_TIME:
            raise ValueError(f"no time: {at}")
        if not (0 <= prompt_tokens <= MAX_TOKENS and 0 <= output_tokens <= MAX_TOKENS):
            raise ValueError(f"{prompt_tokens} and {output_tokens} tokens, not 0 to {MAX_TOKENS}")
        self.at.append(at)
        self.prompt_tokens.append(prompt_tokens or 1)
        self.output_tokens.append(output_tokens or 1)

    def trace(self, units_per_s: float, prefixes: Prefixes | None = None) -> Trace:
        """Return the requests by time; there has to be one."""
        at = np.array(self.at)
        order = np.argsort(at, kind="stable")
        return Trace(
            (at[order] - at[order[0]]) / units_per_s,
            np.array(self.prompt_tokens, np.int64)[order],
            np.array(self.output_tokens, np.int64)[order],
            None if prefixes is None else prefixes.rows(order),
            self.failures,
            self.is_cut,
        )
