"""The lines of a text file that may be anything: each is bounded, so that memory is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from extproc.errors import ConfigError

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
