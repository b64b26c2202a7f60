"""Recorded requests: when each came, how long it was, and what it began with.

Published traces say of beginnings what can be said without the text: a number for each block of tokens, equal
numbers for equal text *and* equal text before it. A block of a trace is several blocks of an engine, so a
number of the trace stands for as many consecutive numbers of `Arrival.content`.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from extproc.lab.engine.decoders import Content
from extproc.lab.engine.engine_profile import DEFAULT_BLOCK_SIZE
from extproc.lab.traffic.arrivals import Arrival, Floats
from extproc.lab.traffic.workload import Tokens

Numbers = npt.NDArray[np.int64]

_BATCH = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Prefixes:
    """The blocks of `block_tokens` that prompts consist of: row by row, `numbers[begins:ends]`.

    The numbers of a row cover its whole prompt, or there are none. `block_tokens` is a multiple of
    DEFAULT_BLOCK_SIZE.
    """

    numbers: Numbers
    begins: Numbers
    ends: Numbers
    block_tokens: int

    @property
    def width(self) -> int:
        """The numbers of contents that all rows together use: from 0 to this."""
        return (int(self.numbers.max(initial=-1)) + 1) * self._engine_blocks

    def rows(self, rows: Numbers | slice) -> "Prefixes":
        """Return those of some rows."""
        return replace(self, begins=self.begins[rows], ends=self.ends[rows])

    def content(self, row: int, prompt_tokens: int, base: int) -> Content[int]:
        """Return the full blocks of a prompt that may be cut short, counted from `base`.

        An array, since tuples of a trace's sample would be some hundred MB.
        """
        named = self.numbers[self.begins[row] : self.ends[row]]
        each = np.arange(self._engine_blocks, dtype=np.int64)
        blocks = (base + named[:, None] * self._engine_blocks + each).ravel()
        return array("q", blocks[: prompt_tokens // DEFAULT_BLOCK_SIZE].tobytes())

    @property
    def _engine_blocks(self) -> int:
        return self.block_tokens // DEFAULT_BLOCK_SIZE


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests sorted by time, the first one at 0; a length is at least 1.

    The file had `failures` too, requests without an answer, which are not here. It had more requests where
    `is_cut`.
    """

    at_s: Floats
    prompt_tokens: Tokens
    output_tokens: Tokens
    prefixes: Prefixes | None = None
    failures: int = 0
    is_cut: bool = False

    def __len__(self) -> int:
        return len(self.at_s)

    @property
    def duration_s(self) -> float:
        """The time of the last request."""
        return float(self.at_s[-1])

    @property
    def longest_tokens(self) -> int:
        """Prompt and output of the longest request."""
        return int((self.prompt_tokens + self.output_tokens).max())

    def longer_than(self, max_model_len: int) -> int:
        """Count the requests that a context of this many tokens does not hold."""
        return int(np.count_nonzero(self.prompt_tokens + self.output_tokens > max_model_len))

    def stretched(self, factor: float) -> "Trace":
        """Return the same requests, each at `factor` times its time."""
        return replace(self, at_s=self.at_s * factor)

    def first(self, duration_s: float) -> "Trace":
        """Return the requests before that time."""
        return self.rows(slice(int(np.searchsorted(self.at_s, duration_s))))

    def rows(self, rows: Numbers | slice) -> "Trace":
        """Return some of the requests, with the times that they have."""
        return replace(
            self,
            at_s=self.at_s[rows],
            prompt_tokens=self.prompt_tokens[rows],
            output_tokens=self.output_tokens[rows],
            prefixes=None if self.prefixes is None else self.prefixes.rows(rows),
        )

    def arrivals(self, max_model_len: int | None = None, base: int = 0) -> Iterator[Arrival]:
        """Return the requests in their order; those that the context does not hold are cut to it.

        Contents are counted from `base`, so that with another one nothing is shared with those.
        """
        for begin in range(0, len(self), _BATCH):
            yield from self._batch(slice(begin, begin + _BATCH), max_model_len, base)

    def _batch(self, rows: slice, max_model_len: int | None, base: int) -> Iterator[Arrival]:
        prompts, outputs = self.prompt_tokens[rows], self.output_tokens[rows]
        if max_model_len is not None:
            outputs = np.clip(outputs, 1, max_model_len - 1)
            prompts = np.clip(prompts, 1, max_model_len - outputs)
        requests = zip(self.at_s[rows].tolist(), prompts.tolist(), outputs.tolist(), strict=True)
        if self.prefixes is None:
            for request in requests:
                yield Arrival(*request)
            return
        for row, (at_s, prompt_tokens, output_tokens) in enumerate(requests, start=rows.start):
            content = self.prefixes.content(row, prompt_tokens, base)
            yield Arrival(at_s, prompt_tokens, output_tokens, content)


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """A trace as traffic; longer requests than the model's context are cut."""

    trace: Trace
    max_model_len: int

    def arrivals(self, rng: np.random.Generator) -> Iterator[Arrival]:
        """Return the requests of the trace; nothing about them is random."""
        return self.trace.arrivals(self.max_model_len)
