"""One streamed completion of the load generator: the body of its request, and the stream that comes back.

The prompt consists of token ids, so that its length is exact. They are from a range that every vocabulary
has, and random, so no prompt shares a prefix with another and no prefix cache helps, but for the blocks whose
content has a name: equal names give equal ids. `ignore_eos` makes the output as long as it was asked to be. A
stream of hundreds of tokens is searched, not parsed, because the client shares its machine with the server
that it measures.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from extproc.lab.engine.engine_profile import DEFAULT_BLOCK_SIZE

PATH = "/v1/completions"

_FIRST_ID, _LAST_ID = 100, 999
"""Above the special tokens that vocabularies begin with, below the end of even the smallest."""
_ID_TEXTS = np.array([list(b"%d," % number) for number in range(_FIRST_ID, _LAST_ID + 1)], np.uint8)
"""All ids have three digits, so a prompt is one gather from this table of shape (900, 4)."""

_TAIL_BYTES = 4096
"""Guessed: the last events, usage included, are 500 bytes at vLLM."""
_END = b"data: [DONE]"
_ERROR = b'data: {"error"'  # inside an event's texts every quote is escaped, so this is no text


def completion_body(
    model: str,
    prompt_tokens: int,
    output_tokens: int,
    rng: np.random.Generator,
    content: Sequence[int] = (),
) -> bytes:
    """A streamed completion with exactly these lengths and a usage event at its end.

    `content` is as in `Arrival`: names of the first blocks, of the prompt and maybe of more.
    """
    numbers = rng.integers(len(_ID_TEXTS), size=prompt_tokens)
    if content:
        named = _named_ids(content)[:prompt_tokens]
        numbers[: len(named)] = named
    ids = _ID_TEXTS[numbers].tobytes()[:-1]
    return (
        b'{"model":%b,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true,'
        b'"max_tokens":%d,"prompt":[%b]}' % (msgspec.json.encode(model), output_tokens, ids)
    )


def _named_ids(content: Sequence[int]) -> npt.NDArray[np.int64]:
    """The numbers of the ids in blocks with these names: SplitMix64 of the name and the place in the block.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
    """
    places = np.arange(DEFAULT_BLOCK_SIZE, dtype=np.uint64)
    mixed = (np.array(content, np.uint64)[:, None] * np.uint64(DEFAULT_BLOCK_SIZE) + places).ravel()
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed % np.uint64(len(_ID_TEXTS))).astype(np.int64)


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Token counts as the server gives them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens from the prefix cache; None where the server does not say."""
        return None if self.prompt_tokens_details is None else self.prompt_tokens_details.cached_tokens


class _Event(msgspec.Struct):
    usage: Usage | None = None


_decoder = msgspec.json.Decoder(_Event)


class EventStream:
    """The part of a stream that has come; memory is bounded whatever the server sends."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.has_error = False
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        self.size_bytes += len(data)
        seen = self._tail + data
        self.has_error = self.has_error or _ERROR in seen
        self._tail = seen[-_TAIL_BYTES:]

    @property
    def is_complete(self) -> bool:
        """The stream has said that it ended, and nothing of an error."""
        return not self.has_error and _END in self._tail

    def usage(self) -> Usage | None:
        """Return the counts of the last event that has some; None where none has."""
        for line in reversed(self._tail.splitlines()):
            if line.startswith(b"data: {"):
                try:
                    event = _decoder.decode(line[len(b"data: ") :])
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    return None
                if event.usage is not None:
                    return event.usage
        return None
