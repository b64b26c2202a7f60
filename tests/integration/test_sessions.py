"""Sessions through the real Envoy: turns whose bodies cannot be read stay where their session is."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping

from support.client_load import Answer, chat
from support.process_stack import LocalStack, running

from extproc.request.session import SESSION_HEADERS

NAMES = ("vllm-1", "vllm-2", "vllm-3", "vllm-4")
OWN = "x-thread-id"
UNREADABLE = bytes(byte ^ 0xFF for byte in range(256))


def with_own_header(text: str) -> str:
    """Envoy's configuration, which forwards one more header."""
    found = re.search(r"^( *)- {exact: session-id}$", text, re.MULTILINE)
    assert found is not None
    return text.replace(found[0], f"{found[0]}\n{found[1]}- exact: {OWN}")


async def turn(stack: LocalStack, headers: Mapping[str, str], number: int) -> Answer:
    """Ask with a body that neither Envoy nor the router unpacks; a simulated server refuses it."""
    packed = json.dumps(chat(words=3000 + number)).encode().translate(UNREADABLE)
    return await stack.ask(data=packed, headers={**headers, "content-encoding": "br"})


async def homes(stack: LocalStack, headers: Mapping[str, str]) -> set[str]:
    return {(await turn(stack, headers, number)).backend for number in range(3)}


def test_turns_that_cannot_be_read_go_where_their_session_is(stack: LocalStack) -> None:
    for name in NAMES:
        stack.start_sim(name, "--speed", "20")
    stack.edit_envoy = with_own_header
    stack.stages["sessions"] = {"header": OWN}

    async def scenario() -> None:
        async with running(stack):
            seen: Counter[str] = Counter()
            for name in (*SESSION_HEADERS, OWN):
                for session in range(2):
                    found = await homes(stack, {name: f"{name}-{session}"})
                    assert len(found) == 1, (name, found)
                    seen.update(found)
            assert set(seen) <= set(NAMES)
            assert len(seen) > 1, "sessions are spread"
            sessions = 2 * (len(SESSION_HEADERS) + 1)
            assert await stack.metric("extproc_followed_sessions_total") == 2 * sessions
            without = [await homes(stack, {}) for _ in range(4)]
            assert max(map(len, without)) > 1, "without a session nothing keeps them together"
            assert await stack.metric("extproc_followed_sessions_total") == 2 * sessions

    asyncio.run(scenario())
