"""A continuous-batching inference engine, iteration by iteration, without I/O and without a clock.

It follows vLLM's v1 scheduler: first come first served; in each iteration the running sequences go first,
which puts decoding before the one prefill that may be under way; what is left of the token budget admits
waiting ones in chunks; KV memory is given out in blocks; a running sequence that finds none preempts the
youngest, which loses its KV cache, goes back to the head of the queue and is recomputed. Prompts that begin
with what is in the KV cache are not computed again as far as that goes. Every request produces all the tokens
it asks for. Sources: Yu et al., "Orca" (OSDI 2022); Kwon et al., "PagedAttention" (SOSP 2023); Agrawal et
al., "Sarathi-Serve" (OSDI 2024).

The caller owns the time. A server in real time takes one iteration after the other: `begin_step` says how
long it takes, `end_step` what came out of it. An evaluator takes a run of many at once: `begin_run` plans
iterations up to the next one that changes the batch, the caller may shorten what was planned when a request
comes, and `end_run` tells of what changed. Both are the same iterations. Requests may be submitted in
between, and aborted, within a run only where it has one iteration.
"""

import copy
from collections import OrderedDict
from dataclasses import replace

from extproc.simulation.decoders import Decoders
from extproc.simulation.kv_memory import KvMemory
from extproc.simulation.limits import EngineLimits
from extproc.simulation.profile import EngineProfile, attended_pairs
from extproc.simulation.results import EngineCounters, FinishReason, RunResult, StepResult
from extproc.simulation.run import TICK_S, Run
from extproc.simulation.sequence import NOT_DECODING, Content, Sequence

NO_LIMIT = 1 << 62


_NOTHING = RunResult()
_NO_CHUNKS: list[tuple[Sequence, int]] = []


class Engine:
    """One engine; `begin_run` and `end_run` alternate, or `begin_step` and `end_step`."""

    def __init__(self, profile: EngineProfile, limits: EngineLimits) -> None:
        self.limits = limits
        self.counters = EngineCounters()
        self._cost = profile.step_ticks()
        self._memory = KvMemory(limits.kv_cache_blocks)
        self._stuck: OrderedDict[str, Sequence] = OrderedDict()
        self._waiting: OrderedDict[str, Sequence] = OrderedDict()
        self._running: dict[str, Sequence] = {}
        self._decoders = Decoders(limits.block_size)
        self._chunks: list[tuple[Sequence, int]] = []
        self.run: Run | None = None  # the one that has begun
        self._places = 0

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
        """Share of the KV blocks in use in the first iteration of a run, 0 to 1."""
        return self.kv_cache_fraction_in(0)

    def kv_cache_fraction_in(self, step: int) -> float:
        """Share of the KV blocks in use in an iteration of the run that has begun, counted from 0."""
        free = self._memory.free - (self._decoders.new_blocks_of(1, step) if step else 0)
        return 1 - free / self._memory.size

    @property
    def decoding(self) -> int:
        """Requests that get one more token in each iteration of the run that has begun."""
        return self._decoders.count

    @property
    def may_admit(self) -> bool:
        """Whether the next iteration will try to admit a request that has just been submitted."""
        return len(self._waiting) == 1 and len(self._running) < self.limits.max_num_seqs

    def submit(
        self,
        request_id: str,
        prompt_tokens: int,
        output_tokens: int,
        now_s: float,
        content: Content[int] = (),
    ) -> None:
        """Queue a request; with 0 output tokens (an embedding) it finishes when its prompt is computed.

        `content` names the full blocks of its text, from the first one on, by numbers that are not negative;
        equal numbers stand for equal content *and* equal content before it. What it does not name is unique.
        Raises ValueError for an id in use, an empty prompt, or a request that the whole KV cache cannot hold.
        """
        if request_id in self._running or request_id in self._waiting or request_id in self._stuck:
            raise ValueError(f"request {request_id} is already here")
        if prompt_tokens < 1 or output_tokens < 0:
            raise ValueError(f"a request needs a prompt: {prompt_tokens} and {output_tokens} tokens")
        if self.limits.blocks_for(prompt_tokens + output_tokens) > self._memory.size:
            raise ValueError(f"{prompt_tokens} + {output_tokens} tokens exceed the KV cache")
        sequence = Sequence(request_id, prompt_tokens, output_tokens, content, now_s)
        if self.limits.http_limit is None:
            self._waiting[request_id] = sequence
        else:
            self._stuck[request_id] = sequence
            self._let_in(now_s)

    def abort(self, request_id: str) -> None:
        """Drop a request wherever it is; one that is not here, because it has just finished, is no error."""
        if self._stuck.pop(request_id, None) is not None:
            return  # The engine never saw it, so it does not count it.
        sequence = self._waiting.pop(request_id, None) or self._running.pop(request_id, None)
        if sequence is None:
            return
        if sequence.last_step != NOT_DECODING:
            self._decoders.leave(sequence, is_step_under_way=self.run is not None)
        self._leave(sequence, FinishReason.ABORT)

    def begin_step(self, now_s: float) -> float | None:
        """Put the next iteration together; its duration in seconds, or None if there is nothing to do."""
        run = self.begin_run(now_s, most_steps=1)
        return None if run is None else run.first * TICK_S

    def end_step(self, now_s: float) -> StepResult:
        """Finish the iteration; what was aborted while it ran yields nothing."""
        decoding = [key for key, each in self._running.items() if each.last_step != NOT_DECODING]
        result = self.end_run(now_s)
        return StepResult((*decoding, *result.begun), tuple(result.finished), tuple(result.ttfts_s))

    def begin_run(self, now_s: float, most_steps: int = NO_LIMIT) -> Run | None:
        """Plan the next iterations, all of one batch; None if there is nothing to do.

        The caller may make `steps` smaller while it goes on, down to the iteration that is under way.
        """
        if self._stuck:
            self._let_in(now_s)
        decoders, memory, running = self._decoders, self._memory, self._running
        self._chunks = _NO_CHUNKS
        may_admit = True
        if decoders.count:
            new_blocks = decoders.new_blocks()
            if new_blocks > memory.free:
                new_blocks, may_admit = self._make_room(), False
            if new_blocks:
                memory.take(new_blocks)
        if len(running) > decoders.count:  # A prefill is under way.
            may_admit = self._continue_prefill() and may_admit
        if self._waiting and may_admit and len(running) < self.limits.max_num_seqs:
            self._admit()
        self.run = self._prefill_step() if self._chunks else self._decode_run(most_steps, may_admit)
        return self.run

    def end_run(self, now_s: float) -> RunResult:
        """Finish the iterations of the run."""
        run = self.run
        if run is None:
            raise ValueError("no run has begun")
        self.run = None
        decoders, steps = self._decoders, run.steps
        if steps > 1 and (new_blocks := decoders.new_blocks_of(1, steps - 1)):
            self._memory.take(new_blocks)
        self.counters.generation_tokens += decoders.advance(steps)
        finished = decoders.finished()
        if not finished and not self._chunks:
            return _NOTHING
        result = RunResult()
        for sequence in finished:
            del self._running[sequence.request_id]
            result.finished.append(sequence.request_id)
            self._leave(sequence, FinishReason.LENGTH)
        for sequence, tokens in self._chunks:
            if self._running.get(sequence.request_id) is sequence:
                sequence.computed_tokens += tokens
                if sequence.computed_tokens == sequence.prompt_tokens + sequence.produced_tokens:
                    self._complete_prefill(sequence, result, now_s)
        return result

    def copied(self) -> "Engine":
        """One that goes on from here by itself."""
        twin = copy.copy(self)
        twin.counters = replace(self.counters, finished=dict(self.counters.finished))
        twin._memory = self._memory.copied()
        twins: dict[Sequence, Sequence] = {}
        for name in ("_stuck", "_waiting", "_running"):
            queue = getattr(self, name)
            own = type(queue)()
            for request_id, sequence in queue.items():
                own[request_id] = twins[sequence] = copy.copy(sequence)
            setattr(twin, name, own)
        twin._decoders = self._decoders.copied(twins)
        twin._chunks = [(twins[sequence], tokens) for sequence, tokens in self._chunks if sequence in twins]
        twin.run = copy.copy(self.run)
        return twin

    def _let_in(self, now_s: float) -> None:
        limit = self.limits.http_limit
        while self._stuck and (limit is None or len(self._running) + len(self._waiting) < limit):
            request_id, sequence = self._stuck.popitem(last=False)
            sequence.entered_s = now_s
            self._waiting[request_id] = sequence

    def _make_room(self) -> int:
        """Preempt the youngest until all that decode find the blocks they need; how many that are."""
        while (new_blocks := self._decoders.new_blocks()) > self._memory.free:
            self._preempt_youngest()
        return new_blocks

    def _continue_prefill(self) -> bool:
        """The next chunk of the youngest; False where there is no memory for it, and it is preempted.

        No other prefill is under way: the budget ends at one that is not complete.
        """
        sequence = next(reversed(self._running.values()))
        tokens = min(sequence.pending_tokens, self._budget())
        missing = self.limits.blocks_for(sequence.computed_tokens + tokens) - sequence.blocks
        if missing > self._memory.free:
            self._preempt_youngest()
            return False
        self._compute(sequence, tokens, missing)
        return True

    def _budget(self) -> int:
        """Tokens that the iteration has left beside those of the sequences that decode."""
        return self.limits.max_num_batched_tokens - self._decoders.count

    def _admit(self) -> None:
        """Admit from the head of the queue; nobody overtakes a request that does not fit."""
        limits, running, memory = self.limits, self._running, self._memory
        budget = self._budget() - sum(tokens for _, tokens in self._chunks)
        while self._waiting and budget and len(running) < limits.max_num_seqs:
            sequence = next(iter(self._waiting.values()))
            known, shared = self._known_blocks(sequence) if sequence.content else (0, 0)
            # Blocks are taken chunk by chunk, but an input that cannot fit whole would only be preempted.
            if limits.blocks_for(sequence.known_tokens) - shared > memory.free:
                return
            self._waiting.popitem(last=False)
            running[sequence.request_id] = sequence
            self._places += 1
            sequence.place = self._places
            if known:
                memory.pin(sequence.content, known)
                sequence.blocks = sequence.pinned = known
                sequence.computed_tokens = known * limits.block_size
            if not sequence.produced_tokens:
                self.counters.prefix_queries += sequence.prompt_tokens
                self.counters.prefix_hits += sequence.computed_tokens
            tokens = min(sequence.pending_tokens, budget)
            self._compute(sequence, tokens, limits.blocks_for(sequence.computed_tokens + tokens) - known)
            budget -= tokens

    def _known_blocks(self, sequence: Sequence) -> tuple[int, int]:
        """How many of its blocks are there, and in use; one token is always computed, for its logits."""
        return self._memory.known(sequence.content[: (sequence.known_tokens - 1) // self.limits.block_size])

    def _compute(self, sequence: Sequence, tokens: int, new_blocks: int) -> None:
        self._memory.take(new_blocks)
        sequence.blocks += new_blocks
        if self._chunks:
            self._chunks.append((sequence, tokens))
        else:
            self._chunks = [(sequence, tokens)]

    def _prefill_step(self) -> Run:
        decoders, prefill_tokens, attention_pairs = self._decoders, 0, 0
        kv_tokens = decoders.tokens
        for sequence, tokens in self._chunks:
            prefill_tokens += tokens
            kv_tokens += sequence.computed_tokens
            attention_pairs += attended_pairs(sequence.computed_tokens, tokens)
        return Run(1, self._cost.step(prefill_tokens, decoders.count, kv_tokens, attention_pairs), 0)

    def _decode_run(self, most_steps: int, may_admit: bool) -> Run | None:
        """Up to the first end, as long as there is memory; who waits now will not fit before either."""
        decoders = self._decoders
        if not decoders.count:
            return None
        steps = decoders.run_length(most_steps, self._memory.free) if may_admit else 1
        first = self._cost.step(0, decoders.count, decoders.tokens)
        return Run(steps, first, decoders.count * self._cost.kv_token)

    def _complete_prefill(self, sequence: Sequence, result: RunResult, now_s: float) -> None:
        """The prompt is computed, and its first token is there; or all that was lost is computed again."""
        if not sequence.produced_tokens:
            self.counters.prompt_tokens += sequence.prompt_tokens
            result.ttfts_s.append(now_s - sequence.entered_s)
        if sequence.output_tokens:
            sequence.produced_tokens += 1
            self.counters.generation_tokens += 1
            result.begun.append(sequence.request_id)
        if sequence.produced_tokens < sequence.output_tokens:
            if sequence.content:
                self._publish(sequence)
            self._decoders.join(sequence)
        else:
            del self._running[sequence.request_id]
            result.finished.append(sequence.request_id)
            self._leave(sequence, FinishReason.LENGTH if sequence.output_tokens else FinishReason.STOP)

    def _preempt_youngest(self) -> None:
        request_id, sequence = self._running.popitem()
        if sequence.last_step != NOT_DECODING:
            self._decoders.leave(sequence, is_step_under_way=False)
        self._free(sequence)
        sequence.computed_tokens = 0
        self._waiting[request_id] = sequence
        self._waiting.move_to_end(request_id, last=False)
        self.counters.preemptions += 1

    def _leave(self, sequence: Sequence, reason: FinishReason) -> None:
        self._free(sequence)
        self.counters.finished[reason] += 1

    def _publish(self, sequence: Sequence) -> None:
        """Let others find the blocks that are full."""
        full = min(len(sequence.content), sequence.computed_tokens // self.limits.block_size)
        if sequence.pinned < full:
            sequence.pinned = self._memory.publish(sequence.content, sequence.pinned, full)

    def _free(self, sequence: Sequence) -> None:
        if sequence.content:
            self._publish(sequence)
            self._memory.give(sequence.blocks - sequence.pinned)
            self._memory.unpin(sequence.content, sequence.pinned)
        else:
            self._memory.give(sequence.blocks)
        sequence.blocks = sequence.pinned = 0
