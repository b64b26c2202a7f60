"""Without the sidecar, Envoy alone sends a request to a server of its model, as far as it can tell that."""

import asyncio
import json

from support.envoy_process import StartEnvoy
from support.scripted_sidecar import Backend, Stack, running

from extproc.fleet.endpoint import Endpoint

TRIES = 6
"""A request that is placed at random would have to be lucky so often."""

PADDING = "x" * 200_000


async def answered_by(stack: Stack, body: bytes, headers: dict[str, str] | None = None) -> set[str]:
    answers = [await stack.post(body, headers) for _ in range(TRIES)]
    assert {answer.status for answer in answers} == {200}
    return {answer.headers["x-answered-by"] for answer in answers}


def form_of(model: str) -> tuple[bytes, dict[str, str]]:
    separator = "b4"
    part = f'--{separator}\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
    head = (part % ("file", '; filename="a.wav"')).encode() + bytes(100_000)
    tail = f"\r\n{part % ('model', '')}{model}\r\n--{separator}--\r\n".encode()
    return head + tail, {"content-type": f"multipart/form-data; boundary={separator}"}


def test_a_request_meets_its_model_when_no_sidecar_listens(start_envoy: StartEnvoy) -> None:
    backends = [Backend(name) for name in "abcd"]
    models = {"a": ["chat"], "b": ["chat", "adapter"], "c": ["whisper", "org/asr"], "d": []}

    async def scenario() -> None:
        async with running(start_envoy, *backends) as stack:
            known = [
                Endpoint(each.name, each.host, each.port, frozenset(models[each.name]) or None)
                for each in stack.addresses
            ]
            await stack.replace_backends(*known)
            await stack.sidecar.stop()
            late = json.dumps({"messages": [{"role": "user", "content": PADDING}], "model": "whisper"})
            early = json.dumps({"model": "whisper", "prompt": PADDING})
            for body in (early, late, '{"model" : "whisper"}'):
                assert await answered_by(stack, body.encode()) == {"c"}
            assert await answered_by(stack, *form_of("whisper")) == {"c"}
            assert await answered_by(stack, b'{"model": "adapter"}') == {"b"}
            assert await answered_by(stack, b'{"model": "chat"}') <= {"a", "b"}
            for unknown in (b'{"model": "nobodys"}', b"{}", b"no json", PADDING.encode()):
                assert await answered_by(stack, unknown) <= set("abcd")
            async with stack.client.ws_connect(f"{stack.envoy.url}/v1/realtime?a=b&model=org%2Fasr") as talk:
                await talk.send_str("hello")
                assert await talk.receive_str() == "c: hello"
            assert (await stack.request("GET", None, path="/v1/models")).status == 200

    asyncio.run(scenario())
