"""A continuous-batching inference engine, iteration by iteration, without I/O and without a clock.

Requests come in order of arrival to the scheduler (`lab.engine.scheduler`), some of them stuck for a while in
the HTTP layer before it. Prompts that begin with what is in the KV cache are not computed again as far as
that goes (`lab.engine.kv_memory`). Every request produces all the tokens it asks for.

The caller owns the time. A server in real time takes one iteration after the other: `begin_step` says how
long it takes, `end_step` what came out of it. An evaluator takes a run of many at once: `begin_run` plans
iterations up to the next one that changes the batch, the caller may shorten what was planned when a request
comes, and `end_run` tells of what changed. Both are the same iterations. Requests may be submitted in
between, and aborted, within a run only where it has one iteration.
"""

import copy
from collections import OrderedDict
from dataclasses import replace

import msgspec

from extproc.lab.engine.decoders import NOT_DECODING, Content, Sequence
from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile
from extproc.lab.engine.run import TICK_S, EngineCounters, FinishReason, Run, RunResult, StepResult
from extproc.lab.engine.scheduler import Scheduler


class Engine:
    """One engine; `begin_run` and `end_run` alternate, or `begin_step` and `end_step`."""

    def __init__(self, profile: EngineProfile, limits: EngineLimits) -> None:
        self.limits = limits
        self.counters = EngineCounters()
        self.run: Run | None = None  # the one that has begun
        self._stuck: OrderedDict[str, Sequence] = OrderedDict()
        self._scheduler = Scheduler(profile.step_ticks(), limits, self.counters)
        self._kv_cache_tokens = limits.kv_cache_blocks * limits.block_size

    @property
    def running(self) -> int:
        """Requests in the batch, those that finish at the end of the current iteration included."""
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        """Requests in the engine's queue."""
        return len(self._scheduler.waiting)

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
        memory, decoders = self._scheduler.memory, self._scheduler.decoders
        free = memory.free - (decoders.new_blocks_of(1, step) if step else 0)
        return 1 - free / memory.size

    @property
    def adapters(self) -> tuple[frozenset[int], frozenset[int]]:
        """The numbers of the adapters whose requests run, and of those whose requests wait in the queue."""
        waiting = {each.adapter for each in self._scheduler.waiting.values()} - {0}
        return frozenset(self._scheduler.running_adapters), frozenset(waiting)

    @property
    def decoding(self) -> int:
        """Requests that get one more token in each iteration of the run that has begun."""
        return self._scheduler.decoders.count

    def may_admit(self) -> bool:
        """Return whether the next iteration will try to admit a request that has just been submitted."""
        scheduler, limits = self._scheduler, self.limits
        is_first = len(scheduler.waiting) == 1 or limits.adapter_places is not None
        return is_first and len(scheduler.running) < limits.max_num_seqs

    def submit(
        self,
        request_id: str,
        prompt_tokens: int,
        output_tokens: int,
        now_s: float,
        content: Content[int] = (),
        adapter: int = 0,
    ) -> None:
        """Queue a request; with 0 output tokens (an embedding) it finishes when its prompt is computed.

        `content` names the full blocks of its text, from the first one on, by numbers that are not negative;
        equal numbers stand for equal content *and* equal content before it. The rest of the prompt is unique.
        Raises ValueError for an id in use, an empty prompt, or a request that the whole KV cache cannot hold.
        """
        running, waiting, stuck = self._scheduler.running, self._scheduler.waiting, self._stuck
        if request_id in running or request_id in waiting or request_id in stuck:
            raise ValueError(f"request {request_id} is already here")
        if prompt_tokens < 1 or output_tokens < 0:
            raise ValueError(f"a request needs a prompt: {prompt_tokens} and {output_tokens} tokens")
        total_tokens = prompt_tokens + output_tokens
        if total_tokens > self._kv_cache_tokens:
            raise ValueError(f"{prompt_tokens} + {output_tokens} tokens exceed the KV cache")
        sequence = Sequence(
            request_id, prompt_tokens, total_tokens, prompt_tokens, content, now_s, adapter=adapter
        )
        if self.limits.http_limit is None:
            waiting[request_id] = sequence
        else:
            stuck[request_id] = sequence
            self._let_in(now_s)

    def abort(self, request_id: str) -> None:
        """Drop a request wherever it is; one that is not here, because it has just finished, is no error."""
        if self._stuck.pop(request_id, None) is not None:
            return  # The engine never saw it, so it does not count it.
        if self._scheduler.drop(request_id, is_step_under_way=self.run is not None):
            self.counters.finished[FinishReason.ABORT] += 1

    def begin_step(self, now_s: float) -> float | None:
        """Put the next iteration together; its duration in seconds, or None if there is nothing to do."""
        run = self.begin_run(now_s, is_one_step=True)
        return None if run is None else run.first * TICK_S

    def end_step(self, now_s: float) -> StepResult:
        """Finish the iteration; what was aborted while it ran yields nothing."""
        running = self._scheduler.running
        decoding = [key for key, each in running.items() if each.last_step != NOT_DECODING]
        result = self.end_run(now_s)
        return StepResult((*decoding, *result.begun), tuple(result.finished), tuple(result.ttfts_s))

    def begin_run(self, now_s: float, is_one_step: bool = False) -> Run | None:
        """Plan the next iterations, all of one batch; None if there is nothing to do.

        The caller may make `steps` smaller while it goes on, down to the iteration that is under way.
        """
        if self._stuck:
            self._let_in(now_s)
        self.run = self._scheduler.plan(is_one_step)
        return self.run

    def end_run(self, now_s: float) -> RunResult:
        """Finish the iterations of the run."""
        run = self.run
        if run is None:
            raise ValueError("no run has begun")
        self.run = None
        return self._scheduler.complete(run.steps, now_s)

    def copied(self) -> "Engine":
        """Return a copy that goes on from here by itself."""
        twin = copy.copy(self)
        twin.counters = replace(self.counters, finished=dict(self.counters.finished))
        queues = (self._stuck, self._scheduler.waiting, self._scheduler.running)
        twins = {
            sequence: msgspec.structs.replace(sequence) for queue in queues for sequence in queue.values()
        }
        twin._stuck = OrderedDict((key, twins[sequence]) for key, sequence in self._stuck.items())
        twin._scheduler = self._scheduler.copied(twins, twin.counters)
        twin.run = copy.copy(self.run)
        return twin

    def _let_in(self, now_s: float) -> None:
        limit, running, waiting = self.limits.http_limit, self._scheduler.running, self._scheduler.waiting
        while self._stuck and (limit is None or len(running) + len(waiting) < limit):
            request_id, sequence = self._stuck.popitem(last=False)
            sequence.entered_s = now_s
            waiting[request_id] = sequence
