"""The beginning of a prompt, as a chain of hashes: each stands for a block of it and for everything before.

An engine does not compute again what it has in its KV cache, and looks that up from the beginning on. So two
requests share as much work as their chains do. A chain is made of the body's bytes from the prompt's field
on, without decoding them: the next turn of a conversation sends the same bytes again, and more. Tools and
instructions that differ before the same messages are not seen: what is wrong is an estimate. A `cache_salt`
is part of the chain, since engines keep the blocks of each salt apart.

The blocks grow with their distance, so that a long prompt has few and what is lost at the end of a long
common beginning is an eighth of it at most. Where the engine reads another field before the prompt
(`Api.opening_field`) the chain begins with it, wherever it is in the body.

The hash is Python's own of bytes, SipHash-1-3 with a key that is random in each process (Aumasson and
Bernstein, "SipHash", 2012), a third of the time of BLAKE2: no client can tell which texts would share an
entry. Nothing of a text is kept but these numbers.
"""

from bisect import bisect_right
from functools import cache
from itertools import pairwise
from typing import Final

from extproc.request.api import Api

_SMALLEST_BYTES: Final = 512
_BLOCKS_PER_SIZE: Final = 8
_MAX_BYTES: Final = 128 * 1024
"""Guessed: what is smaller is not worth finding, and hashing more takes longer than reading the body."""


def _ends() -> tuple[int, ...]:
    ends = [0]
    while ends[-1] < _MAX_BYTES:
        size = max(_SMALLEST_BYTES, ends[-1] // _BLOCKS_PER_SIZE)
        ends += [ends[-1] + size * number for number in range(1, _BLOCKS_PER_SIZE + 1)]
    return tuple(ends[1:])


BLOCK_ENDS: Final = _ends()
"""Where each block of a chain ends, in bytes from where the prompt begins: 48 of them."""

_BLOCKS: Final = tuple(pairwise((0, *BLOCK_ENDS)))


def read_prefix(
    api: Api, body: bytes, model: str | None, cache_salt: str = ""
) -> tuple[tuple[int, ...], int]:
    """Return the chain of a body's prompt, and the bytes from the prompt's field on; never raises.

    A block that is not full has no hash. Models do not share anything. Engines cache the prefixes of
    generations only.
    """
    if not api.is_generation or model is None:
        return (), 0
    prompt, opening = _marks(api)
    begin = body.find(prompt)
    length = len(body) - begin
    if begin < 0 or length < _SMALLEST_BYTES:
        return (), 0
    if opening is not None:
        body, begin, length = _opened(body, begin, body.find(opening))
    last, chain = hash((model, cache_salt)) if cache_salt else hash(model), []
    for start, end in _BLOCKS[: bisect_right(BLOCK_ENDS, length)]:
        last = hash((last, body[begin + start : begin + end]))
        chain.append(last)
    return tuple(chain), length


def _opened(body: bytes, prompt: int, opening: int) -> tuple[bytes, int, int]:
    """Return a body in which the opening is before the prompt, where it begins there, and its length."""
    if opening < prompt:
        begin = prompt if opening < 0 else opening
        return body, begin, len(body) - begin
    front = body[opening : opening + BLOCK_ENDS[-1]]
    return front + body[prompt : min(opening, prompt + BLOCK_ENDS[-1])], 0, len(body) - prompt


@cache
def _marks(api: Api) -> tuple[bytes, bytes | None]:
    """Return how the prompt's field and the opening one, if there is one, look in a body."""
    opening = api.opening_field
    return f'"{api.prompt_field}"'.encode(), None if opening is None else f'"{opening}"'.encode()
