"""One request inside a simulated engine: how many of its tokens are known, and how many are computed.

As in vLLM's v1 scheduler there is no prefill phase and no decode phase, only a distance between the tokens
that are known (prompt and output so far) and those whose KV cache is computed. Chunked prefill, decoding
and recomputation after a preemption all close that distance.
"""

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Sequence:
    """A request's progress; `blocks` is the KV memory it holds."""

    request_id: str
    prompt_tokens: int
    output_tokens: int
    entered_s: float = 0.0
    produced_tokens: int = 0
    computed_tokens: int = 0
    blocks: int = 0

    @property
    def known_tokens(self) -> int:
        """Prompt and output so far."""
        return self.prompt_tokens + self.produced_tokens

    @property
    def pending_tokens(self) -> int:
        """Known tokens still to be computed; once there are none, the next token comes out."""
        return self.prompt_tokens + self.produced_tokens - self.computed_tokens
