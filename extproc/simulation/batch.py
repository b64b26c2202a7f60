"""What one iteration of a simulated engine computes: chunks of tokens, within a token budget."""

from extproc.simulation.profile import EngineProfile
from extproc.simulation.sequence import Sequence


class Batch:
    """The chunks of one iteration, and what they cost."""

    def __init__(self, token_budget: int) -> None:
        self.token_budget = token_budget
        self.chunks: list[tuple[Sequence, int]] = []
        self._prefill_tokens = 0
        self._decoding = 0
        self._kv_tokens = 0
        self._attention_pairs = 0.0

    def chunk_for(self, sequence: Sequence) -> int:
        """How many of the sequence's pending tokens still fit."""
        return min(sequence.pending_tokens, self.token_budget)

    def add(self, sequence: Sequence, tokens: int) -> None:
        """Compute `tokens` of the sequence in this iteration."""
        self.chunks.append((sequence, tokens))
        self.token_budget -= tokens
        self._kv_tokens += sequence.computed_tokens
        if sequence.produced_tokens and tokens == 1:
            self._decoding += 1
        else:
            self._prefill_tokens += tokens
            self._attention_pairs += tokens * (sequence.computed_tokens + tokens / 2)

    def duration_s(self, profile: EngineProfile) -> float:
        """How long the iteration takes on this machine."""
        return profile.step_duration_s(
            self._prefill_tokens, self._decoding, self._kv_tokens, self._attention_pairs
        )
