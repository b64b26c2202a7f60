"""Mooncake's traces: JSON by line, with a number for each block of 512 tokens of the prompt.

Equal numbers mean equal blocks after equal beginnings. That is not taken on trust: a number is looked up
below the one before it, so that whatever a file says, two prompts only share a beginning.
Source: kvcache-ai/Mooncake, FAST25-release (Qin et al., "Mooncake", FAST 2025).
"""

from array import array
from typing import Annotated

import msgspec
import numpy as np

from extproc.lab.load.trace_reading import TextLines, TraceColumns
from extproc.lab.traffic.trace import Prefixes, Trace

BLOCK_TOKENS = 512
MAX_BLOCKS = 2_000_000
"""Guessed: four times those of the largest published trace; 300 MB while it is read."""
DESCRIPTION = "Mooncake's JSONL (timestamp, input_length, output_length, hash_ids)"

_Id = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Row(msgspec.Struct):
    """One request; `timestamp` is in milliseconds."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[_Id] | None = None


class _RowFields(msgspec.Struct):
    """The fields by which a line is recognized."""

    timestamp: msgspec.Raw
    input_length: msgspec.Raw
    output_length: msgspec.Raw


def is_mooncake(line: str) -> bool:
    """Return whether a first line has the fields of this format."""
    try:
        msgspec.json.decode(line, type=_RowFields)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def read_mooncake_trace(lines: TextLines) -> Trace:
    """Read a file of this format; raises ConfigError, with the line, where it has anything else."""
    decoder, columns, tree = msgspec.json.Decoder(_Row), TraceColumns(), _PrefixTree()
    for line in lines:
        if line.isspace():
            continue
        if columns.is_full or tree.is_full:
            columns.is_cut = True
            break
        try:
            row = decoder.decode(line)
            columns.add(row.timestamp, row.input_length, row.output_length)
            tree.add(row.input_length, row.hash_ids)
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise lines.fault(f"expected {DESCRIPTION}: {error}") from error
    return columns.trace(1e3, tree.prefixes())


class _PrefixTree:
    """Numbers of blocks from 0 on, one for each id that has been seen after the same ids."""

    def __init__(self) -> None:
        self._children: dict[int, int] = {}
        self._numbers = array("q")
        self._ends = array("q")
        self._count = 0

    @property
    def is_full(self) -> bool:
        """Whether no more prompts are held."""
        return len(self._numbers) >= MAX_BLOCKS

    def add(self, prompt_tokens: int, ids: list[int] | None) -> None:
        """Add a prompt; the last block, which may be partial, may be without an id.

        Raises ValueError where there are too few ids or too many.
        """
        if ids is not None:
            blocks = -(-prompt_tokens // BLOCK_TOKENS)
            if not prompt_tokens // BLOCK_TOKENS <= len(ids) <= blocks:
                raise ValueError(
                    f"{len(ids)} hash_ids for {prompt_tokens} tokens, where one for each {BLOCK_TOKENS} are "
                    f"{blocks}"
                )
            self._walk(ids)
            if len(ids) < blocks:
                self._numbers.append(self._new())
        self._ends.append(len(self._numbers))

    def prefixes(self) -> Prefixes:
        """Return the numbers of all prompts, in the order in which they came."""
        ends = np.array(self._ends, np.int64)
        begins = np.concatenate(([0], ends[:-1]))
        return Prefixes(np.array(self._numbers, np.int64), begins, ends, BLOCK_TOKENS)

    def _walk(self, ids: list[int]) -> None:
        children, numbers, number = self._children, self._numbers, -1
        for each in ids:
            key = (number + 1) << 63 | each
            number = children.get(key, -1)
            if number < 0:
                number = children[key] = self._new()
            numbers.append(number)

    def _new(self) -> int:
        self._count += 1
        return self._count - 1
