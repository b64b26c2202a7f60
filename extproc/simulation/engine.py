"""A continuous-batching inference engine, iteration by iteration, without I/O and without a clock.

It follows vLLM's v1 scheduler: first come first served; in each iteration the running sequences go first,
which puts decoding before the one prefill that may be under way; what is left of the token budget admits
waiting ones in chunks; KV memory is given out in blocks; a running sequence that finds none preempts the
youngest, which loses its KV cache, goes back to the head of the queue and is recomputed. There is no prefix
cache, and every request produces all the tokens it asks for. Sources: Yu et al., "Orca" (OSDI 2022); Kwon et
al., "PagedAttention" (SOSP 2023); Agrawal et al., "Sarathi-Serve" (OSDI 2024).

The caller owns the time: `begin_step` says how long an iteration takes, `end_step` what came out of it. A
server sleeps in between, an evaluator advances its virtual clock. Requests may be submitted and aborted in
between.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from extproc.simulation.batch import Batch
from extproc.simulation.limits import EngineLimits
from extproc.simulation.profile import EngineProfile
from extproc.simulation.sequence import Sequence


class FinishReason(StrEnum):
    """How a request left the engine, in vLLM's words; STOP is for requests without output tokens."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(slots=True)
class EngineCounters:
    """Totals since the start; prompt tokens count once, when the prompt has been computed."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    finished: dict[FinishReason, int] = field(default_factory=lambda: dict.fromkeys(FinishReason, 0))


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one iteration brought: the requests that got a token, those that finished, by id, oldest first.

    `ttfts_s` holds one time per prompt completed, counted from entering the engine as vLLM's own histogram
    does: what a request spent stuck before the engine is not in it.
    """

    produced: tuple[str, ...]
    finished: tuple[str, ...]
    ttfts_s: tuple[float, ...]


class Engine:
    """One engine; `begin_step` and `end_step` alternate."""

    def __init__(self, profile: EngineProfile, limits: EngineLimits) -> None:
        self.limits = limits
        self.counters = EngineCounters()
        self._profile = profile
        self._free_blocks = limits.kv_cache_blocks
        self._stuck: OrderedDict[str, Sequence] = OrderedDict()
        self._waiting: OrderedDict[str, Sequence] = OrderedDict()
        self._running: OrderedDict[str, Sequence] = OrderedDict()
        self._batch = Batch(0)

    @property
    def running(self) -> int:
        """Requests in the batch, those that finish at the end of the current iteration included."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the engine's queue."""
        return len(self._waiting)

    @property
    def stuck(self) -> int:
        """Requests before the engine, which it knows nothing of."""
        return len(self._stuck)

    @property
    def kv_cache_fraction(self) -> float:
        """Share of the KV blocks in use, 0 to 1."""
        return 1 - self._free_blocks / self.limits.kv_cache_blocks

    def submit(self, request_id: str, prompt_tokens: int, output_tokens: int, now_s: float) -> None:
        """Queue a request; with 0 output tokens (an embedding) it finishes when its prompt is computed.

        Raises ValueError for an id in use, an empty prompt, or a request that the whole KV cache cannot hold.
        """
        if any(request_id in queue for queue in (self._stuck, self._waiting, self._running)):
            raise ValueError(f"request {request_id} is already here")
        if prompt_tokens < 1 or output_tokens < 0:
            raise ValueError(f"a request needs a prompt: {prompt_tokens} and {output_tokens} tokens")
        if self.limits.blocks_for(prompt_tokens + output_tokens) > self.limits.kv_cache_blocks:
            raise ValueError(f"{prompt_tokens} + {output_tokens} tokens exceed the KV cache")
        self._stuck[request_id] = Sequence(request_id, prompt_tokens, output_tokens)
        self._let_in(now_s)

    def abort(self, request_id: str) -> None:
        """Drop a request wherever it is; one that is not here, because it has just finished, is no error."""
        if self._stuck.pop(request_id, None) is not None:
            return  # The engine never saw it, so it does not count it.
        sequence = self._waiting.pop(request_id, None) or self._running.pop(request_id, None)
        if sequence is not None:
            self._leave(sequence, FinishReason.ABORT)

    def begin_step(self, now_s: float) -> float | None:
        """Put the next iteration together; its duration in seconds, or None if there is nothing to do."""
        self._let_in(now_s)
        self._batch = Batch(self.limits.max_num_batched_tokens)
        if self._schedule_running():
            self._schedule_waiting()
        return self._batch.duration_s(self._profile) if self._batch.chunks else None

    def end_step(self, now_s: float) -> StepResult:
        """Finish the iteration; what was aborted while it ran yields nothing."""
        produced: list[str] = []
        finished: list[str] = []
        ttfts_s: list[float] = []
        for sequence, tokens in self._batch.chunks:
            if self._running.get(sequence.request_id) is not sequence:
                continue
            sequence.computed_tokens += tokens
            if sequence.pending_tokens:
                continue
            if not sequence.produced_tokens:
                self.counters.prompt_tokens += sequence.prompt_tokens
                ttfts_s.append(now_s - sequence.entered_s)
            if sequence.output_tokens:
                sequence.produced_tokens += 1
                produced.append(sequence.request_id)
            if sequence.produced_tokens == sequence.output_tokens:
                finished.append(sequence.request_id)
                del self._running[sequence.request_id]
                self._leave(sequence, FinishReason.LENGTH if sequence.output_tokens else FinishReason.STOP)
        self.counters.generation_tokens += len(produced)
        return StepResult(tuple(produced), tuple(finished), tuple(ttfts_s))

    def _let_in(self, now_s: float) -> None:
        limit = self.limits.http_limit
        while self._stuck and (limit is None or len(self._running) + len(self._waiting) < limit):
            request_id, sequence = self._stuck.popitem(last=False)
            sequence.entered_s = now_s
            self._waiting[request_id] = sequence

    def _schedule_running(self) -> bool:
        """Give every running sequence its chunk, oldest first; False if one of them had to be preempted."""
        preemptions = self.counters.preemptions
        for sequence in tuple(self._running.values()):
            if not self._batch.token_budget or sequence.request_id not in self._running:
                break  # The youngest are preempted first, so all that follow are gone as well.
            tokens = self._batch.chunk_for(sequence)
            while not self._take_blocks(sequence, tokens):
                if self._preempt_youngest() is sequence:
                    return False
            self._batch.add(sequence, tokens)
        return self.counters.preemptions == preemptions

    def _schedule_waiting(self) -> None:
        """Admit from the head of the queue; nobody overtakes a request that does not fit."""
        while self._waiting and self._batch.token_budget and len(self._running) < self.limits.max_num_seqs:
            request_id, sequence = next(iter(self._waiting.items()))
            # Blocks are taken chunk by chunk, but an input that cannot fit whole would only be preempted.
            if self.limits.blocks_for(sequence.known_tokens) > self._free_blocks:
                return
            del self._waiting[request_id]
            self._running[request_id] = sequence
            tokens = self._batch.chunk_for(sequence)
            self._take_blocks(sequence, tokens)
            self._batch.add(sequence, tokens)

    def _take_blocks(self, sequence: Sequence, tokens: int) -> bool:
        missing = self.limits.blocks_for(sequence.computed_tokens + tokens) - sequence.blocks
        if missing > self._free_blocks:
            return False
        self._free_blocks -= missing
        sequence.blocks += missing
        return True

    def _preempt_youngest(self) -> Sequence:
        request_id, sequence = self._running.popitem()
        self._free(sequence)
        sequence.computed_tokens = 0
        self._waiting[request_id] = sequence
        self._waiting.move_to_end(request_id, last=False)
        self.counters.preemptions += 1
        return sequence

    def _leave(self, sequence: Sequence, reason: FinishReason) -> None:
        self._free(sequence)
        self.counters.finished[reason] += 1

    def _free(self, sequence: Sequence) -> None:
        self._free_blocks += sequence.blocks
        sequence.blocks = 0
