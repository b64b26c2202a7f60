"""One request inside a simulated engine: how many of its tokens are known, and how many are computed.

As in vLLM's v1 scheduler there is no prefill phase and no decode phase, only a distance between the tokens
that are known (prompt and output so far) and those whose KV cache is computed. Chunked prefill, decoding
and recomputation after a preemption all close that distance.
"""

import collections.abc
from dataclasses import dataclass

Content = collections.abc.Sequence
"""Names of full blocks; a Sequence, in this module, is a request."""
NOT_DECODING = -1


@dataclass(slots=True, eq=False)
class Sequence:
    """A request's progress; `blocks` is the KV memory it holds, `pinned` of them are shared by content.

    `total_tokens` are those of the prompt and of all the output, `known_tokens` of the output so far.
    `content` names the full blocks of the text, prompt first, as far as others may have them too. `place` is
    the sequence's number among all that were ever admitted. While it decodes its progress is kept by
    `Decoders`, which know the iteration `last_step` that brings its last token; `known_tokens`,
    `computed_tokens` and `blocks` are then those at the time when it joined.
    """

    request_id: str
    prompt_tokens: int
    total_tokens: int
    known_tokens: int
    content: Content[int]
    entered_s: float
    computed_tokens: int = 0
    blocks: int = 0
    pinned: int = 0
    place: int = 0
    last_step: int = NOT_DECODING
