"""How much of a prompt each backend has computed before, it is to be expected: what a request saves there."""

from collections.abc import Mapping

from extproc.fleet.prefixes import SentPrefixes
from extproc.request.prefix import BLOCK_ENDS
from extproc.request.request import Request


def cached_tokens(request: Request, prefixes: SentPrefixes) -> Mapping[int, float]:
    """The prompt's tokens that a backend need not compute, by slot, of those that know any."""
    blocks = prefixes.blocks_at(request.prefix)
    if not blocks:
        return blocks
    tokens_per_byte = request.input_tokens / request.prompt_bytes
    return {slot: BLOCK_ENDS[count - 1] * tokens_per_byte for slot, count in blocks.items()}
