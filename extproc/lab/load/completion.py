"""The body of one request for `/v1/completions`: a prompt of token ids, so that its length is exact.

The ids are from a range that every vocabulary has. They are random, so no prompt shares a prefix with another
and no prefix cache helps, but for the blocks whose content has a name: equal names give equal ids.
`ignore_eos` makes the output as long as it was asked to be.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from extproc.lab.engine.engine_limits import DEFAULT_BLOCK_SIZE

PATH = "/v1/completions"

_FIRST_ID, _LAST_ID = 100, 999
"""Above the special tokens that vocabularies begin with, below the end of even the smallest."""
_ID_TEXTS = np.array([list(b"%d," % number) for number in range(_FIRST_ID, _LAST_ID + 1)], np.uint8)
"""All ids have three digits, so a prompt is one gather from this table of shape (900, 4)."""


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
