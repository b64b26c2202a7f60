"""The SDKs that people use, against the stack: every answer is the server's own."""

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anthropic
import openai
import pytest
from aiohttp import web
from support.local_application import model_server
from support.process_stack import LocalStack, SharedStack
from support.stack_fixtures import sharing, two_sims

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 400).decode()
TOOL = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = {"name": "weather", "arguments": '{"city": "Bern"}'}
HELLO = [{"role": "user", "content": "hello"}]
TOKENS = 5
TEXT = " token" * TOKENS


@dataclass
class Scripted:
    """A server of its own model, for what the simulated ones do not answer: tools and form data."""

    received: list[dict[str, str]] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Serve, on a port that the kernel chooses."""
        routes = (
            web.post("/v1/audio/transcriptions", self._transcribe),
            web.post("/v1/chat/completions", self._call),
            web.get("/v1/realtime", self._speak),
        )
        async with model_server("scripted", routes, max_body_bytes=1 << 25) as port:
            yield port

    async def _transcribe(self, request: web.Request) -> web.Response:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        return web.json_response({"text": f"{form['model']}: {len(file.file.read())} bytes"})

    async def _speak(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("done")
        await socket.close()
        return socket

    async def _call(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert body["tools"][0]["function"]["name"] == CALL["name"]
        call = {"index": 0, "id": "call_1", "type": "function", "function": CALL}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        head = {"id": "chatcmpl-1", "created": 1, "model": "scripted"}
        if not body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
            return web.json_response({**head, "object": "chat.completion", "choices": [choice]})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for delta, reason in ((message, None), ({}, "tool_calls")):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
            await response.write(f": keep-alive\n\ndata: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStack]:
    """A running stack of two simulated servers and a scripted one."""
    servers = {"scripted": Scripted().serving()}
    with sharing(tmp_path_factory.mktemp("sdks"), two_sims, servers) as shared:
        yield shared


@asynccontextmanager
async def openai_client(stack: LocalStack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{stack.envoy.url}/v1", api_key="none", max_retries=0, timeout=60.0
    ) as client:
        yield client


@asynccontextmanager
async def anthropic_client(stack: LocalStack) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=stack.envoy.url, api_key="none", max_retries=0, timeout=60.0
    ) as client:
        yield client


def test_openai_chat_completions_and_embeddings(fleet: SharedStack) -> None:
    async def scenario() -> None:
        async with openai_client(fleet.stack) as client:
            chat = await client.chat.completions.create(model="sim", messages=HELLO, max_tokens=TOKENS)
            assert (chat.choices[0].message.content, chat.usage.completion_tokens) == (TEXT, TOKENS)
            stream = await client.chat.completions.create(
                model="sim",
                messages=HELLO,
                max_tokens=TOKENS,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
            assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == TEXT
            assert chunks[-1].usage.completion_tokens == TOKENS
            plain = await client.completions.create(model="sim", prompt="hello", max_tokens=TOKENS)
            assert plain.choices[0].text == TEXT
            vectors = await client.embeddings.create(model="sim", input=["a", "b"], encoding_format="float")
            assert [each.index for each in vectors.data] == [0, 1]
            assert sorted([model.id async for model in client.models.list()]) == ["scripted", "sim"]

    fleet.run(scenario())


def test_openai_images_and_tools(fleet: SharedStack) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    asked = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]}]
    tools = [{"type": "function", "function": {"name": CALL["name"], "parameters": TOOL}}]

    async def scenario() -> None:
        async with openai_client(fleet.stack) as client:
            seen = await client.chat.completions.create(model="sim", messages=asked, max_tokens=TOKENS)
            assert seen.choices[0].message.content == TEXT
            called = await client.chat.completions.create(model="scripted", messages=HELLO, tools=tools)
            assert called.choices[0].message.tool_calls[0].function.arguments == CALL["arguments"]
            stream = await client.chat.completions.create(
                model="scripted", messages=HELLO, tools=tools, stream=True
            )
            first, last = [chunk async for chunk in stream]
            assert first.choices[0].delta.tool_calls[0].function.name == CALL["name"]
            assert last.choices[0].finish_reason == "tool_calls"

    fleet.run(scenario())


def test_openai_responses(fleet: SharedStack) -> None:
    async def scenario() -> None:
        async with openai_client(fleet.stack) as client:
            whole = await client.responses.create(model="sim", input="hello", max_output_tokens=TOKENS)
            assert whole.output_text == TEXT
            stream = await client.responses.create(
                model="sim", input="hello", max_output_tokens=TOKENS, stream=True
            )
            deltas = [each.delta async for each in stream if each.type == "response.output_text.delta"]
            assert "".join(deltas) == TEXT

    fleet.run(scenario())


def test_openai_form_data(fleet: SharedStack) -> None:
    async def scenario() -> None:
        async with openai_client(fleet.stack) as client:
            heard = await client.audio.transcriptions.create(
                model="scripted", file=("a.wav", bytes(100_000), "audio/wav")
            )
            assert heard.text == "scripted: 100000 bytes"

    fleet.run(scenario())


def test_openai_errors_are_the_servers_and_the_routers(fleet: SharedStack) -> None:
    async def scenario() -> None:
        async with openai_client(fleet.stack) as client:
            with pytest.raises(openai.BadRequestError, match="maximum context length"):
                await client.chat.completions.create(model="sim", messages=HELLO, max_tokens=10**6)
            with pytest.raises(openai.NotFoundError, match="`nobodys` does not exist"):
                await client.chat.completions.create(model="nobodys", messages=HELLO)
            with pytest.raises(openai.NotFoundError, match="stored response"):
                await client.responses.retrieve("resp_unknown")

    fleet.run(scenario())


def test_a_server_that_ends_its_websockets_is_no_failing_one(fleet: SharedStack) -> None:
    ok = re.compile(r'^extproc_outcomes_total{backend="scripted",result="ok"} (\S+)$', re.MULTILINE)

    async def scenario() -> None:
        stack, sessions = fleet.stack, 8

        def answered(page: str) -> float:
            return sum(map(float, ok.findall(page)))

        before = answered(await stack.metrics_page())
        for _ in range(sessions):
            async with stack.session.ws_connect(f"{stack.envoy.url}/v1/realtime?model=scripted") as socket:
                assert [message.data async for message in socket] == ["done"]
        await stack.until_page(lambda page: answered(page) >= before + sessions)

    fleet.run(scenario())


def test_anthropic_messages(fleet: SharedStack) -> None:
    image = {"type": "base64", "media_type": "image/png", "data": PNG}
    asked = [{"role": "user", "content": [{"type": "image", "source": image}, {"type": "text", "text": "?"}]}]
    tools = [{"name": CALL["name"], "input_schema": TOOL}]

    async def scenario() -> None:
        async with anthropic_client(fleet.stack) as client:
            options = {"model": "sim", "max_tokens": TOKENS, "system": "be brief"}
            whole = await client.messages.create(**options, messages=HELLO)
            assert (whole.content[0].text, whole.usage.output_tokens) == (TEXT, TOKENS)
            seen = await client.messages.create(**options, messages=asked, tools=tools)
            assert seen.content[0].text == TEXT
            async with client.messages.stream(**options, messages=HELLO) as stream:
                assert "".join([text async for text in stream.text_stream]) == TEXT
            with pytest.raises(anthropic.NotFoundError) as missing:
                await client.messages.create(model="nobodys", max_tokens=5, messages=HELLO)
            assert missing.value.body["error"]["type"] == "not_found_error"

    fleet.run(scenario())


def test_a_stream_that_a_client_gives_up_frees_its_place(fleet: SharedStack) -> None:
    async def scenario() -> None:
        async with openai_client(fleet.stack) as client:
            stream = await client.chat.completions.create(
                model="sim", messages=HELLO, max_tokens=4000, stream=True
            )
            async for _ in stream:
                break
            await stream.close()
        async with (
            anthropic_client(fleet.stack) as other,
            other.messages.stream(model="sim", max_tokens=4000, messages=HELLO) as given_up,
        ):
            async for _ in given_up:
                break
        await fleet.stack.until_idle()

    fleet.run(scenario())
