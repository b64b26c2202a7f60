"""Faults in the set-up show the symptoms of the troubleshooting table in docs/operate.md, on a real stack."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from support.client_load import chat
from support.envoy_process import SHIPPED_MESSAGE_TIMEOUT_S, StartEnvoy
from support.process_stack import LocalStack, running

from extproc.fleet.endpoint import Endpoint
from extproc.lab.local_stack.child_process import ChildProcess


async def until_outcome(stack: LocalStack, backend: str, result: str) -> None:
    """Wait until a request has ended so."""
    wanted = f'extproc_outcomes_total{{backend="{backend}",result="{result}"}} 1.0'
    await stack.until_page(lambda page: wanted in page)


@contextmanager
def stopped(process: ChildProcess) -> Iterator[None]:
    """The process hangs: its sockets are open, and nothing answers."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_a_cluster_file_that_envoy_does_not_read_is_503_and_not_routed(
    stack: LocalStack, start_envoy: StartEnvoy
) -> None:
    def start_with_another_file(ext_proc: str, backends: Sequence[Endpoint], **options: Any) -> Any:
        others = [Endpoint("other", backends[0].host, backends[0].port)]
        return start_envoy(ext_proc, others, **options)

    stack.start_sim("vllm-1")
    stack.start_envoy = start_with_another_file
    stack.stages["envoy"] = {"cds_path": str(stack.directory / "elsewhere" / "cds.json")}
    (stack.directory / "elsewhere").mkdir()

    async def scenario() -> None:
        async with running(stack):
            answer = await stack.ask()
            assert (answer.status, answer.backend) == (503, "vllm-1")
            await until_outcome(stack, "vllm-1", "not_routed")

    asyncio.run(scenario())


def test_a_sidecar_that_hangs_is_gone_around_after_a_second(stack: LocalStack) -> None:
    stack.message_timeout_s = SHIPPED_MESSAGE_TIMEOUT_S
    stack.start_sim("vllm-1")

    async def scenario() -> None:
        async with running(stack):
            with stopped(stack.sidecar):
                answer = await stack.ask()
            assert answer.is_complete
            assert (answer.backend, answer.layer) == ("", "")
            stats = "http.inference.ext_proc."
            stat = stack.envoy.stat
            assert await asyncio.to_thread(stat, f"{stats}failure_mode_allowed") == 1
            assert await asyncio.to_thread(stat, f"{stats}message_timeouts") == 1
            await stack.until_metric("extproc_failed_open_total", 1)

    asyncio.run(scenario())


def test_silence_beyond_the_idle_timeout_is_504_and_counted_as_timeout(stack: LocalStack) -> None:
    def impatient(text: str) -> str:
        assert "stream_idle_timeout: 3600s" in text
        return text.replace("stream_idle_timeout: 3600s", "stream_idle_timeout: 1s")

    stack.edit_envoy = impatient
    stack.start_sim("vllm-1")

    async def scenario() -> None:
        async with running(stack):
            with stopped(stack.sims["vllm-1"]):
                answer = await stack.ask(chat(stream=False))
            assert answer.status == 504
            await until_outcome(stack, "vllm-1", "timeout")

    asyncio.run(scenario())
