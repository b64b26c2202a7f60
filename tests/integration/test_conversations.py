"""The turns of a conversation, through the real Envoy: where their beginning is, unless that is crowded."""

import asyncio
import re
from typing import Any

from support.client_load import MODEL, Answer, Load
from support.patience import until
from support.process_stack import LocalStack, running

NAMES = ("vllm-1", "vllm-2", "vllm-3")


class Conversation:
    """A system prompt of its own of some 1,500 tokens, and what was said since."""

    def __init__(self, stack: LocalStack, name: str) -> None:
        self._stack = stack
        self._messages = [{"role": "system", "content": f"You are {name}, of use. " * 300}]

    def next_turn(self, max_tokens: int) -> dict[str, Any]:
        question = {"role": "user", "content": "And then? " * 30}
        self._messages.append(question)
        return {"model": MODEL, "stream": True, "max_tokens": max_tokens, "messages": self._messages}

    async def turn(self) -> Answer:
        answer = await self._stack.ask(self.next_turn(max_tokens=4))
        assert answer.is_complete
        self._messages.append({"role": "assistant", "content": "Then this. " * 30})
        return answer


async def prefix_hits(stack: LocalStack) -> float:
    """The prompt tokens that all backends have found in their caches."""
    total = 0.0
    for port in stack.backends.values():
        async with stack.session.get(f"http://127.0.0.1:{port}/metrics") as response:
            found = re.search(
                r"^vllm:prefix_cache_hits_total\{.*\} (\S+)$", await response.text(), re.MULTILINE
            )
        assert found is not None
        total += float(found[1])
    return total


def test_turns_go_where_their_beginning_is_and_leave_it_when_it_is_crowded(stack: LocalStack) -> None:
    for name in NAMES:
        stack.start_sim(name, "--max-num-seqs", "4", "--speed", "2")

    async def scenario() -> None:
        async with running(stack):
            homes = {}
            for number in range(6):
                conversation = Conversation(stack, f"number {number}")
                answers = [await conversation.turn() for _ in range(3)]
                if len({answer.backend for answer in answers}) == 1:
                    homes[conversation] = answers[0].backend
            assert len(homes) >= 5, "where this machine stalls, another server may seem to be faster once"
            expected = await stack.metric("extproc_expected_cached_tokens_total")
            assert expected > 6 * 2 * 1000
            assert 0.8 * expected < await prefix_hits(stack) < 1.3 * expected

            conversation, home = homes.popitem()
            turn = conversation.next_turn(max_tokens=16)
            assert (await stack.ask(turn)).backend == home
            async with Load(stack, 16, turn) as load:
                await until(lambda: {answer.backend for answer in load.answers} == set(NAMES))
            assert not load.failures

    asyncio.run(scenario())
