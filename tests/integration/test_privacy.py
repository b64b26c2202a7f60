"""What clients say stays between them and the backend: the sidecar keeps and tells nothing of it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
from support.client_load import MODEL
from support.patience import PATIENCE_S
from support.process_stack import LocalStack, running
from support.warm_process import WarmProcess

SECRET = "s3cret-marker"
HEADERS = {
    "authorization": f"Bearer {SECRET}",
    "cookie": f"session={SECRET}",
    "x-api-key": SECRET,
    "x-extproc-priority": SECRET,
    "x-slo-ttft-ms": SECRET,
    "session-id": SECRET,
}
TOLD = ("/metrics", "/v1/state", "/")


def bodies() -> list[bytes]:
    """A chat, a completion in which everything is odd, and what is no JSON."""
    chat = (
        f'{{"model": "{MODEL}", "stream": true, "max_tokens": 4, "user": "{SECRET}", "tools": ["{SECRET}"],'
        f' "messages": [{{"role": "user", "name": "{SECRET}", "content": "{SECRET}"}}]}}'
    )
    return [chat.encode(), chat.replace('"stream": true', f'"stream": "{SECRET}"').encode(), SECRET.encode()]


async def told(stack: LocalStack) -> str:
    texts = []
    for path in TOLD:
        async with stack.session.get(f"http://127.0.0.1:{stack.http_port}{path}") as response:
            texts.append(await response.text())
    return "\n".join(texts)


def has_samples(stack: LocalStack) -> bool:
    return any(MODEL.encode() in path.read_bytes() for path in stack.directory.glob("samples.db*"))


def written_by_the_sidecar(stack: LocalStack) -> dict[Path, bytes]:
    own = [stack.directory / "sidecar.log", stack.cds_path, *stack.directory.glob("samples.db*")]
    return {path: path.read_bytes() for path in own}


def test_no_body_and_no_secret_is_logged_shown_or_stored(stack: LocalStack) -> None:
    command = [sys.executable, "-m", "extproc", "serve", "--config", str(stack.config_path)]
    log = stack.directory / "sidecar.log"
    stack.sidecar = WarmProcess("sidecar", [*command, "--log-level", "debug"], log)
    stack.start_sim("vllm-1", "--speed", "4")

    async def scenario() -> None:
        async with running(stack):
            for body in bodies():
                await stack.ask(data=body, headers=HEADERS, path=f"/v1/chat/completions?key={SECRET}")
            await stack.ask(data=bodies()[0], headers=HEADERS, path=f"/{SECRET}")
            unknown = bodies()[0].replace(MODEL.encode(), b"no-such-model", 1)
            assert (await stack.ask(data=unknown, headers=HEADERS)).status == 404
            await left_early(stack)
            async with asyncio.timeout(PATIENCE_S):
                while log.read_bytes().count(b"request_finished") < 4 or not has_samples(stack):
                    # On a busy machine Envoy may fail open, and then there is nothing to record.
                    await stack.ask(data=bodies()[0], headers=HEADERS)
            assert SECRET not in await told(stack)

    asyncio.run(scenario())
    written = written_by_the_sidecar(stack)
    assert not [path.name for path, content in written.items() if SECRET.encode() in content]


async def left_early(stack: LocalStack) -> None:
    """A client that announces a body and leaves before it is complete."""

    async def endless() -> AsyncIterator[bytes]:
        yield SECRET.encode()
        await asyncio.Event().wait()

    timeout = aiohttp.ClientTimeout(total=0.3)
    with suppress(TimeoutError):
        url = stack.envoy.url + "/v1/completions"
        async with stack.session.post(url, data=endless(), headers=HEADERS, timeout=timeout):
            pass
