"""Whose tokens the next iterations of a simulated engine compute: vLLM's v1 scheduler.

First come first served; in each iteration the running sequences go first, which puts decoding before the one
prefill that may be under way; what is left of the token budget admits waiting ones in chunks; KV memory is
given out in blocks; a running sequence that finds none preempts the youngest, which loses its KV cache, goes
back to the head of the queue and is recomputed. A request without a place for its adapter is overtaken
until one of the running adapters has no request left. Sources: Yu et al., "Orca" (OSDI 2022); Kwon et al.,
"PagedAttention" (SOSP 2023); Agrawal et al., "Sarathi-Serve" (OSDI 2024).
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping

from extproc.lab.engine.decoders import NOT_DECODING, Decoders, Sequence
from extproc.lab.engine.engine_profile import EngineLimits, StepTicks, attended_pairs
from extproc.lab.engine.kv_memory import KvMemory
from extproc.lab.engine.run import EngineCounters, FinishReason, Run, RunResult

_LENGTH = FinishReason.LENGTH  # here, since looking a member up is slow in an enum
_NOTHING = RunResult()
_NO_CHUNKS: list[tuple[Sequence, int]] = []


class Scheduler:
    """`waiting` and `running` sequences by request, oldest first; `chunks` of prompts are being computed."""

    def __init__(self, cost: StepTicks, limits: EngineLimits, counters: EngineCounters) -> None:
        self._cost = cost
        self._limits = limits
        self._counters = counters
        self._places = 0
        self.waiting: OrderedDict[str, Sequence] = OrderedDict()
        self.running: dict[str, Sequence] = {}
        self.running_adapters: dict[int, int] = {}  # and how many requests of each
        self.chunks = _NO_CHUNKS
        self.decoders = Decoders(limits.block_size)
        self.memory = KvMemory(limits.kv_cache_blocks, limits.block_size)

    def plan(self, is_one_step: bool) -> Run | None:
        """Return the next iterations, all of one batch; None if there is nothing to do."""
        decoders, memory = self.decoders, self.memory
        has_room = True
        if new_blocks := decoders.new_blocks():
            if new_blocks <= memory.free:
                memory.take(new_blocks)
            else:
                self._make_room()
                has_room = False
        if self.waiting or len(self.running) > decoders.count:
            has_room = self._prefill(has_room)
            if self.chunks:
                return self._prefill_step()
        count = decoders.count
        if not count:
            return None
        # Up to the first end, as long as there is memory; waiting requests do not fit earlier either.
        steps = 1 if is_one_step or not has_room else decoders.run_length(memory.free)
        cost = self._cost
        return Run(steps, cost.decode_step(count, decoders.tokens), count * cost.kv_token)

    def complete(self, steps: int, now_s: float) -> RunResult:
        """Complete some iterations of the plan."""
        decoders, counters = self.decoders, self._counters
        if steps > 1 and (new_blocks := decoders.new_blocks_of(1, steps - 1)):
            self.memory.take(new_blocks)
        counters.generation_tokens += steps * decoders.count
        finished, chunks = decoders.advance(steps), self.chunks
        if not finished and not chunks:
            return _NOTHING
        result = RunResult()
        for sequence in finished:
            self._finish(sequence, result, _LENGTH)
        if chunks:
            self.chunks = _NO_CHUNKS
            for sequence, tokens in chunks:
                sequence.computed_tokens += tokens
                if sequence.computed_tokens == sequence.known_tokens:
                    self._end_prefill(sequence, result, now_s)
        return result

    def drop(self, request_id: str, is_step_under_way: bool) -> bool:
        """Forget a request that is not complete; whether it was here."""
        sequence = self.waiting.pop(request_id, None)
        if sequence is None:
            sequence = self.running.pop(request_id, None)
            if sequence is None:
                return False
            self._leave_adapter(sequence)
        if sequence.last_step != NOT_DECODING:
            self.decoders.leave(sequence, is_step_under_way)
        self.chunks = [chunk for chunk in self.chunks if chunk[0] is not sequence]
        self.memory.release(sequence)
        return True

    def copied(self, twins: Mapping[Sequence, Sequence], counters: EngineCounters) -> "Scheduler":
        """Return the same with other sequences in the place of these."""
        twin = copy.copy(self)
        twin._counters = counters
        twin.waiting = OrderedDict((key, twins[sequence]) for key, sequence in self.waiting.items())
        twin.running = {key: twins[sequence] for key, sequence in self.running.items()}
        twin.running_adapters = self.running_adapters.copy()
        twin.chunks = [(twins[sequence], tokens) for sequence, tokens in self.chunks]
        twin.decoders = self.decoders.copied(twins)
        twin.memory = self.memory.copied()
        return twin

    def _make_room(self) -> None:
        """Give those that decode the blocks they need, oldest first, and preempt the youngest for them."""
        memory, taken = self.memory, 0
        while (missing := self.decoders.new_blocks() - taken) > memory.free:
            taken += memory.free
            memory.take(memory.free)
            self._preempt_youngest()
        memory.take(missing)

    def _prefill(self, has_room: bool) -> bool:
        """Give the prompts what is left of the tokens; whether no request had to make room for others."""
        running, limits = self.running, self._limits
        budget = limits.max_num_batched_tokens - self.decoders.count
        if len(running) > self.decoders.count:
            tokens = self._continue_prefill(budget)
            has_room = has_room and tokens > 0
            budget -= tokens
        if has_room and self.waiting and len(running) < limits.max_num_seqs:
            self._admit(budget)
        return has_room

    def _continue_prefill(self, budget: int) -> int:
        """Return the next chunk of the youngest; none if there is no memory and it is preempted.

        No other prefill is under way: the budget ends at one that is not complete.
        """
        sequence = next(reversed(self.running.values()))
        tokens = min(sequence.known_tokens - sequence.computed_tokens, budget)
        if self._limits.blocks_for(sequence.computed_tokens + tokens) - sequence.blocks > self.memory.free:
            self._preempt_youngest()
            return 0
        self._compute(sequence, tokens)
        return tokens

    def _admit(self, budget: int) -> None:
        """Admit from the head of the queue; no request overtakes one that does not fit."""
        waiting, running, memory = self.waiting, self.running, self.memory
        limits, counters = self._limits, self._counters
        while waiting and budget and len(running) < limits.max_num_seqs:
            sequence = self._first_with_place()
            if sequence is None:
                return
            known_tokens = sequence.known_tokens
            known, shared = memory.known(sequence) if sequence.content else (0, 0)
            # Blocks are taken chunk by chunk, but an input that cannot fit whole would only be preempted.
            if limits.blocks_for(known_tokens) - shared > memory.free:
                return
            del waiting[sequence.request_id]
            running[sequence.request_id] = sequence
            if sequence.adapter:
                adapters = self.running_adapters
                adapters[sequence.adapter] = adapters.get(sequence.adapter, 0) + 1
            place = self._places = self._places + 1
            sequence.place = place
            if known:
                memory.pin(sequence, known)
            if known_tokens == sequence.prompt_tokens:
                counters.prefix_queries += known_tokens
                counters.prefix_hits += sequence.computed_tokens
            pending_tokens = known_tokens - sequence.computed_tokens
            tokens = pending_tokens if pending_tokens < budget else budget
            self._compute(sequence, tokens)
            budget -= tokens

    def _first_with_place(self) -> Sequence | None:
        """Return the oldest in the queue that has a place for its adapter, or needs none."""
        places, adapters = self._limits.adapter_places, self.running_adapters
        for sequence in self.waiting.values():
            adapter = sequence.adapter
            if places is None or not adapter or adapter in adapters or len(adapters) < places:
                return sequence
            if not sequence.has_waited:
                sequence.has_waited = True
                self._counters.adapter_waits += 1
        return None

    def _leave_adapter(self, sequence: Sequence) -> None:
        if sequence.adapter:
            left = self.running_adapters.pop(sequence.adapter) - 1
            if left:
                self.running_adapters[sequence.adapter] = left

    def _compute(self, sequence: Sequence, tokens: int) -> None:
        blocks = self._limits.blocks_for(sequence.computed_tokens + tokens)
        self.memory.take(blocks - sequence.blocks)
        sequence.blocks = blocks
        if self.chunks:
            self.chunks.append((sequence, tokens))
        else:
            self.chunks = [(sequence, tokens)]

    def _prefill_step(self) -> Run:
        prefill_tokens, kv_tokens, attention_pairs = 0, self.decoders.tokens, 0
        for sequence, tokens in self.chunks:
            computed_tokens = sequence.computed_tokens
            prefill_tokens += tokens
            kv_tokens += computed_tokens
            attention_pairs += attended_pairs(computed_tokens, tokens)
        return Run(1, self._cost.step(prefill_tokens, self.decoders.count, kv_tokens, attention_pairs), 0)

    def _end_prefill(self, sequence: Sequence, result: RunResult, now_s: float) -> None:
        """End a prefill: the first token is there, or all that was lost is computed again."""
        counters, prompt_tokens = self._counters, sequence.prompt_tokens
        has_output = prompt_tokens < sequence.total_tokens
        if sequence.known_tokens == prompt_tokens:
            counters.prompt_tokens += prompt_tokens
            result.ttfts_s.append(now_s - sequence.entered_s)
        if has_output:
            sequence.known_tokens += 1
            counters.generation_tokens += 1
            result.begun.append(sequence.request_id)
        if sequence.known_tokens < sequence.total_tokens:
            if sequence.content:
                self.memory.publish(sequence)
            self.decoders.join(sequence)
        else:
            self._finish(sequence, result, _LENGTH if has_output else FinishReason.STOP)

    def _finish(self, sequence: Sequence, result: RunResult, reason: FinishReason) -> None:
        del self.running[sequence.request_id]
        self._leave_adapter(sequence)
        self.memory.release(sequence)
        self._counters.finished[reason] += 1
        result.finished.append(sequence.request_id)

    def _preempt_youngest(self) -> None:
        request_id, sequence = self.running.popitem()
        self._leave_adapter(sequence)
        if sequence.last_step != NOT_DECODING:
            self.decoders.leave(sequence, is_step_under_way=False)
        self.memory.release(sequence)
        sequence.computed_tokens = 0
        self.waiting[request_id] = sequence
        self.waiting.move_to_end(request_id, last=False)
        self._counters.preemptions += 1
