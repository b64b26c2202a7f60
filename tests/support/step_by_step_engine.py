"""What `Engine` is held against: the same scheduler in the plainest way, sequence by sequence, step by step.

Nothing is summed up or foreseen; a prefix cache is a list of blocks in order of least recent use. `step` is
one iteration; it takes `ticks`, and yields the requests that got a token and those that finished.
"""

from dataclasses import dataclass, field

from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile


@dataclass(eq=False)
class PlainSequence:
    key: str
    prompt: int
    output: int
    content: tuple[int, ...]
    produced: int = 0
    computed: int = 0
    is_decoding: bool = False
    blocks: list["Block"] = field(default_factory=list)

    @property
    def known(self) -> int:
        return self.prompt + self.produced


@dataclass(eq=False)
class Block:
    content: int | None = None
    users: int = 0


class StepByStepEngine:
    def __init__(self, profile: EngineProfile, limits: EngineLimits) -> None:
        self.limits = limits
        self.cost = profile.step_ticks()
        self.free = [Block() for _ in range(limits.kv_cache_blocks)]
        self.stuck: list[PlainSequence] = []
        self.waiting: list[PlainSequence] = []
        self.running: list[PlainSequence] = []
        self.batch: list[tuple[PlainSequence, int]] = []
        self.by_content: dict[int, Block] = {}
        self.preemptions = 0
        self.hits = 0

    def submit(self, key: str, prompt: int, output: int, content: tuple[int, ...]) -> None:
        self.stuck.append(PlainSequence(key, prompt, output, content))
        self.let_in()

    def let_in(self) -> None:
        limit = self.limits.http_limit
        while self.stuck and (limit is None or len(self.running) + len(self.waiting) < limit):
            self.waiting.append(self.stuck.pop(0))

    def begin(self) -> int | None:
        """The ticks of the next step."""
        self.let_in()
        self.batch = []
        budget = self.limits.max_num_batched_tokens
        preemptions = self.preemptions
        for sequence in list(self.running):
            if sequence not in self.running:
                break
            tokens = min(sequence.known - sequence.computed, budget)
            while not self.grow(sequence, tokens):
                if self.preempt() is sequence:
                    break
            else:
                self.batch.append((sequence, tokens))
                budget -= tokens
        if preemptions == self.preemptions:
            self.admit(budget)
        if not self.batch:
            return None
        decoding = sum(each.is_decoding for each, _ in self.batch)
        prefill = sum(tokens for each, tokens in self.batch if not each.is_decoding)
        pairs = sum(
            sum(range(each.computed + 1, each.computed + tokens + 1))
            for each, tokens in self.batch
            if not each.is_decoding
        )
        return self.cost.step(prefill, decoding, sum(each.computed for each, _ in self.batch), pairs)

    def end(self) -> tuple[list[str], list[str]]:
        produced, finished = [], []
        for sequence, tokens in self.batch:
            sequence.computed += tokens
            if sequence.computed < sequence.known:
                continue
            if sequence.output:
                sequence.produced += 1
                produced.append(sequence.key)
            was_decoding, sequence.is_decoding = sequence.is_decoding, True
            if sequence.produced == sequence.output:
                finished.append(sequence.key)
                self.running.remove(sequence)
                self.release(sequence)
            elif not was_decoding:
                self.remember(sequence)
        return produced, finished

    def admit(self, budget: int) -> None:
        while self.waiting and budget and len(self.running) < self.limits.max_num_seqs:
            sequence = self.waiting[0]
            hits = self.known_blocks(sequence)
            in_use = sum(block.users > 0 for block in hits)
            if self.limits.blocks_for(sequence.known) - in_use > len(self.free):
                return
            self.running.append(self.waiting.pop(0))
            for block in hits:
                if block in self.free:
                    self.free.remove(block)
                block.users += 1
            sequence.blocks = list(hits)
            sequence.computed = len(hits) * self.limits.block_size
            self.hits += 0 if sequence.produced else sequence.computed
            tokens = min(sequence.known - sequence.computed, budget)
            assert self.grow(sequence, tokens)
            self.batch.append((sequence, tokens))
            budget -= tokens

    def known_blocks(self, sequence: PlainSequence) -> list[Block]:
        found = []
        for content in sequence.content[: (sequence.known - 1) // self.limits.block_size]:
            if content not in self.by_content:
                break
            found.append(self.by_content[content])
        return found

    def grow(self, sequence: PlainSequence, tokens: int) -> bool:
        missing = self.limits.blocks_for(sequence.computed + tokens) - len(sequence.blocks)
        if missing > len(self.free):
            return False
        for _ in range(missing):
            block = self.free.pop(0)
            if block.content is not None:
                del self.by_content[block.content]
            block.content, block.users = None, 1
            sequence.blocks.append(block)
        return True

    def preempt(self) -> PlainSequence:
        sequence = self.running.pop()
        self.release(sequence)
        sequence.computed = 0
        sequence.is_decoding = False
        self.waiting.insert(0, sequence)
        self.preemptions += 1
        return sequence

    def remember(self, sequence: PlainSequence) -> None:
        """Full blocks are found by their content, but for those that are there already."""
        full = sequence.computed // self.limits.block_size
        for content, block in list(zip(sequence.content, sequence.blocks, strict=False))[:full]:
            if block.content is None:
                if content in self.by_content:
                    return
                block.content = content
                self.by_content[content] = block

    def release(self, sequence: PlainSequence) -> None:
        self.remember(sequence)
        for block in reversed(sequence.blocks):
            block.users -= 1
            if not block.users:
                self.free.append(block)
        sequence.blocks = []
