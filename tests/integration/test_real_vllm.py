"""The same as with simulated backends, against real vLLM servers: what is measured here is true."""

import asyncio
import base64
import json
import math
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anthropic
import openai
import pytest
from support.client_load import Answer, by_status, chat
from support.litellm_answers import LITELLM, litellm_answers
from support.process_stack import LocalStack, running

from extproc.adapters.files.sample_reading import read_samples
from extproc.adapters.vllm.exposition import read_signals
from extproc.fleet.signals import Signals

pytestmark = pytest.mark.vllm

FROM_IDLE_TO_SATURATION = (
    *("--rates", "1,2,3,4,5,6,7,8,10,14,20", "--step", "12", "--passes", "4", "--max-in-flight", "120"),
    *("--prompt", "lognormal:60:0.8", "--output", "lognormal:32:0.5"),
)


def extproc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "extproc", *arguments], check=True, timeout=1800)


@pytest.fixture
def vllm_stack(stack: LocalStack) -> LocalStack:
    """A stack before the servers that EXTPROC_VLLM names, not started yet."""
    urls = [url.strip() for url in os.environ.get("EXTPROC_VLLM", "").split(",") if url.strip()]
    assert len(urls) >= 2, "EXTPROC_VLLM must name two running vLLM servers on loopback: URL,URL"
    for number, url in enumerate(urls, start=1):
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        stack.backends[f"vllm-{number}"] = parts.port or 80
    return stack


async def served_model(stack: LocalStack) -> str:
    models: list[str] = (await stack.state())["backends"][0]["models"]
    return models[0]


async def own_metrics(stack: LocalStack, backend: str) -> Signals:
    url = f"http://127.0.0.1:{stack.backends[backend]}/metrics"
    async with stack.session.get(url) as response:
        signals = read_signals(await response.read())
        assert signals is not None
        return signals


def unique_chat(model: str, number: int, words: int, max_tokens: int) -> dict[str, Any]:
    """A request of a size that no other has, and with a beginning that no prefix cache knows."""
    body = chat(words, max_tokens, model=model)
    body["messages"][0]["content"] = f"{number:06d} " + "x" * number + body["messages"][0]["content"]
    body["stream_options"] = {"include_usage": True}
    return body


def test_streams_are_answered_by_all_servers(vllm_stack: LocalStack) -> None:
    async def scenario() -> None:
        async with running(vllm_stack) as stack:
            model = await served_model(stack)
            answers = await stack.ask_many(300, concurrency=30, body=chat(20, 8, model=model))
            assert by_status(answers) == {200: 300}
            assert all(answer.is_complete for answer in answers)
            assert {answer.backend for answer in answers} == set(stack.backends)
            await stack.until_idle(patience_s=1.0)

    asyncio.run(scenario())


def test_scraped_values_agree_with_the_servers_own(vllm_stack: LocalStack) -> None:
    async def scenario() -> None:
        async with running(vllm_stack) as stack:
            model = await served_model(stack)
            bodies = [unique_chat(model, number, 50, 1500) for number in range(12)]
            requests = [asyncio.create_task(stack.ask(body)) for body in bodies]
            await stack.until(lambda state: all((b["running"] or 0) >= 4 for b in state["backends"]))
            for position, name in enumerate(stack.backends):

                async def agrees(position: int = position, name: str = name) -> bool:
                    truth, state = await own_metrics(stack, name), await stack.state()
                    seen = state["backends"][position]
                    return (
                        truth.running == seen["running"] > 0
                        and truth.waiting == seen["waiting"]
                        and truth.kv_cache_fraction is not None
                        and math.isclose(truth.kv_cache_fraction, seen["kv_cache_fraction"], abs_tol=0.02)
                        and seen["foreign"] == 0.0
                    )

                async with asyncio.timeout(10):
                    while not await agrees():
                        await asyncio.sleep(0.05)
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
            await stack.until_idle(patience_s=1.0)

    asyncio.run(scenario())


def test_requests_of_other_clients_are_counted_as_foreign_load(vllm_stack: LocalStack) -> None:
    async def scenario() -> None:
        async with running(vllm_stack) as stack:
            model = await served_model(stack)
            url = f"http://127.0.0.1:{stack.backends['vllm-1']}/v1/chat/completions"

            async def go_around_envoy() -> None:
                async with stack.session.post(url, json=chat(20, 2000, model=model)) as response:
                    await response.read()

            strangers = [asyncio.create_task(go_around_envoy()) for _ in range(3)]
            await stack.until(lambda state: state["backends"][0]["foreign"] == 3.0)
            answers = [await stack.ask(chat(20, 2, model=model)) for _ in range(5)]
            assert {answer.backend for answer in answers} == {"vllm-2"}
            for stranger in strangers:
                stranger.cancel()
            await asyncio.gather(*strangers, return_exceptions=True)

    asyncio.run(scenario())


def test_ttft_in_the_samples_agrees_with_the_clients(vllm_stack: LocalStack) -> None:
    """One request at a time: with more, a client that shares two cores with the servers is late itself."""

    async def scenario() -> dict[int, Answer]:
        async with running(vllm_stack) as stack:
            model = await served_model(stack)
            answers: dict[int, Answer] = {}
            for number in range(40):
                body = unique_chat(model, number, words=100 + 90 * (number % 10), max_tokens=16)
                answers[len(json.dumps(body))] = await stack.ask(body)
            return answers

    answers = asyncio.run(scenario())
    samples = read_samples(vllm_stack.samples_path)
    recorded = dict(zip(samples["body_bytes"].astype(int), samples["ttft_s"], strict=True))
    assert len(recorded) == len(answers) == 40
    differences = [answer.ttft_s - recorded[size] for size, answer in answers.items()]
    close = [
        abs(difference) <= max(0.010, 0.05 * answer.ttft_s)
        for difference, answer in zip(differences, answers.values(), strict=True)
    ]
    assert sum(close) >= 38, sorted(differences)  # client, Envoy and servers share the machine's cores


def test_the_input_length_is_learned_from_the_servers_counter(vllm_stack: LocalStack) -> None:
    async def scenario() -> list[Answer]:
        async with running(vllm_stack) as stack:
            model = await served_model(stack)
            return [await stack.ask(unique_chat(model, n, 300, 2)) for n in range(60)]

    answers = asyncio.run(scenario())
    counted = [int(answer.body.rsplit(b'"prompt_tokens":', 1)[1].split(b",")[0]) for answer in answers]
    samples = read_samples(vllm_stack.samples_path)
    assert abs(samples["input_tokens"][-10:].mean() / statistics.mean(counted[-10:]) - 1.0) < 0.1


def test_vllms_own_errors_reach_the_client(vllm_stack: LocalStack) -> None:
    async def scenario() -> None:
        async with running(vllm_stack) as stack:
            model = await served_model(stack)
            assert (await stack.ask(data=b"not JSON")).status == 400
            too_long = await stack.ask(chat(50_000, 2, model=model))
            assert too_long.status == 400
            assert b"error" in too_long.body
            assert (await stack.ask(chat(2, 2, model="no-such-model"))).status == 404
            async with stack.session.get(f"{stack.envoy.url}/v1/models") as response:
                assert (await response.json())["data"][0]["id"] == model

    asyncio.run(scenario())


def test_a_model_of_real_servers_knows_the_faster_of_two(vllm_stack: LocalStack, tmp_path: Path) -> None:
    urls = ",".join(f"http://127.0.0.1:{port}" for port in vllm_stack.backends.values())
    store, quality = tmp_path / "samples.db", tmp_path / "quality.json"
    extproc("profile", "--backends", urls, "--samples", str(store), *FROM_IDLE_TO_SATURATION)
    extproc("train", "--samples", str(store), "--out", str(tmp_path / "model.json"), "--json", str(quality))
    medium = json.loads(quality.read_text())["quality"]["zones"]["medium"]
    model, least_load = medium["model"], medium["least_load"]
    assert model["pairwise_accuracy"] >= 0.85
    assert model["pairwise_accuracy"] >= least_load["pairwise_accuracy"]
    assert model["errors"]["median_relative"] < medium["last_ttft"]["errors"]["median_relative"]


def test_the_twin_of_a_real_server_predicts_another_load(vllm_stack: LocalStack, tmp_path: Path) -> None:
    """The machine may have other users: how near it is, `benchmarks.calibration` measures."""
    url = f"http://127.0.0.1:{vllm_stack.backends['vllm-1']}"
    fitted, other, numbers = (tmp_path / name for name in ("fitted.db", "other.db", "numbers.json"))
    fit = ("--rates", "0.5,1,2,3", "--step", "12", "--prompt", "lognormal:200:1.1")
    check = ("--rates", "2", "--step", "40", "--prompt", "mix:48:1500:0.15", "--seed", "2")
    for store, load in ((fitted, fit), (other, check)):
        arguments = ("--samples", str(store), "--output", "lognormal:32:0.8", "--passes", "1")
        extproc("profile", "--backends", url, *arguments, *load)
    command = (sys.executable, "-m", "extproc", "calibrate", "--server", url, "--max-num-seqs", "4")
    files = ("--samples", fitted, "--check", other, "--json", numbers)
    subprocess.run([*command, *files], check=False, timeout=600)  # status 1 says: off by more than 20 %
    found = json.loads(numbers.read_text())["agreements"][1]
    for name, most in (("ttft_p50_s", 2.0), ("ttft_p90_s", 1.6), ("tokens_per_s", 1.3)):
        assert 1 / most < found[name]["twin"] / found[name]["server"] < most, name


HELLO: Any = [{"role": "user", "content": "hello"}]
PNG = f"data:image/png;base64,{base64.b64encode(bytes(range(256)) * 40).decode()}"
SEEN: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


async def told(asking: Awaitable[Any]) -> str:
    """What an SDK makes of an answer: its text, or the error, without ids and times."""
    try:
        answer = await asking
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        return f"{error.status_code} {type(error).__name__} {error.message}"
    if isinstance(answer, openai.AsyncStream):
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])
    fields = answer.model_dump()
    said = [fields.get(name) for name in ("choices", "content", "output", "data", "text", "usage")]
    return re.sub(r"'(id|created_at)': [^,}]*", "", repr(said))


async def answers_of_sdks(url: str, model: str) -> dict[str, str]:
    """One answer of each kind; a server that serves none of a kind says so itself."""
    asked: Any = {"model": model, "max_tokens": 5, "temperature": 0.0}
    brief: Any = {"model": model, "max_tokens": 5, "extra_body": {"temperature": 0.0}}
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as other,
    ):
        chat, responses = client.chat.completions.create, client.responses.create
        audio = ("a.wav", bytes(10_000), "audio/wav")
        asking = {
            "chat": chat(messages=HELLO, **asked),
            "stream": chat(messages=HELLO, stream=True, **asked),
            "tools": chat(messages=HELLO, tools=TOOLS, tool_choice="auto", **asked),
            "image": chat(messages=SEEN, **asked),
            "completion": client.completions.create(prompt="hello", **asked),
            "embedding": client.embeddings.create(model=model, input=["a", "b"]),
            "form data": client.audio.transcriptions.create(model=model, file=audio),
            "responses": responses(model=model, input="hello", max_output_tokens=5, temperature=0.0),
            "messages": other.messages.create(messages=HELLO, **brief),
            "count": other.messages.count_tokens(model=model, messages=HELLO),
            "unknown": chat(messages=HELLO, **(asked | {"model": "no-such-model"})),
        }
        return {kind: await told(each) for kind, each in asking.items()}


def test_sdks_get_the_servers_own_answers(vllm_stack: LocalStack) -> None:
    """The openai and anthropic SDKs, compared with what they get of a server without the router."""

    async def scenario() -> None:
        async with running(vllm_stack) as stack:
            model = await served_model(stack)
            routed = await answers_of_sdks(stack.envoy.url, model)
            direct = await answers_of_sdks(f"http://127.0.0.1:{stack.backends['vllm-1']}", model)
            refused = routed.pop("unknown")  # by the router, without vLLM's list of valid names
            assert direct.pop("unknown").startswith(refused)
            assert routed == direct
            assert not routed["chat"].startswith("4")
            await stack.until_idle()

    asyncio.run(scenario())


def test_a_stream_that_an_sdk_gives_up_frees_its_place(vllm_stack: LocalStack) -> None:
    async def scenario() -> None:
        async with running(vllm_stack) as stack:
            asked: Any = {"model": await served_model(stack), "max_tokens": 2000, "messages": HELLO}
            async with openai.AsyncOpenAI(base_url=f"{stack.envoy.url}/v1", api_key="none") as client:
                stream = await client.chat.completions.create(stream=True, **asked)
                await anext(aiter(stream))
                await stream.close()
            async with (
                anthropic.AsyncAnthropic(base_url=stack.envoy.url, api_key="none") as other,
                other.messages.stream(**asked) as given_up,
            ):
                await anext(aiter(given_up))
            await stack.until_idle()
            for name in stack.backends:
                while (await own_metrics(stack, name)).running:
                    await asyncio.sleep(0.1)

    asyncio.run(scenario())


def test_stored_responses_are_found_where_the_servers_keep_them(vllm_stack: LocalStack) -> None:
    async def scenario() -> None:
        async with (
            running(vllm_stack) as stack,
            openai.AsyncOpenAI(base_url=f"{stack.envoy.url}/v1", api_key="none", max_retries=0) as client,
        ):
            model = await served_model(stack)
            for _ in range(4):
                made = await client.responses.create(
                    model=model, input="hello", max_output_tokens=5, store=True
                )
                assert made.id.startswith("resp_")
                url = f"{stack.envoy.url}/v1/responses/{made.id}"
                async with stack.session.get(url) as found:  # else VLLM_ENABLE_RESPONSES_API_STORE is off
                    assert found.status == 200 or found.headers.get("x-extproc-reason") is None
            await stack.until_idle()

    asyncio.run(scenario())


@pytest.mark.skipif(not LITELLM.exists(), reason="litellm is not installed: make test-long does it")
def test_litellm_gets_the_servers_own_answers(vllm_stack: LocalStack) -> None:
    async def scenario() -> None:
        async with running(vllm_stack) as stack:
            model = await served_model(stack)
            direct = f"http://127.0.0.1:{stack.backends['vllm-1']}"
            assert await litellm_answers(stack.envoy.url, model) == await litellm_answers(direct, model)
            await stack.until_idle()

    asyncio.run(scenario())
