"""Requests through the real Envoy, placed by the sidecar, answered by simulated backends."""

import asyncio
import io
import random
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from support.client_load import Answer, by_status, chat
from support.process_stack import LocalStack, SharedStack, running


def test_no_slot_leaks_however_requests_end(stack: LocalStack) -> None:
    stack.start_sim("good", "--speed", "4")
    stack.start_sim("bad", "--speed", "4", "--fail-fraction", "0.67", "--seed", "7")
    stack.stages["breaker"] = {"consecutive_failures": 1000}
    dice = random.Random(1)

    async def scenario() -> None:
        async with running(stack):

            async def abort(after_s: float) -> None:
                async with asyncio.timeout(after_s):
                    await stack.ask(chat(max_tokens=2000))

            wanted = [abort(dice.uniform(0.0, 0.4)) if n % 3 == 0 else stack.ask() for n in range(200)]
            results = await asyncio.gather(*wanted, return_exceptions=True)
            await stack.until_idle()
            aborted = [result for result in results if isinstance(result, TimeoutError)]
            statuses = by_status([result for result in results if isinstance(result, Answer)])
            assert len(aborted) > 40, "the others had failed before"
            assert set(statuses) == {200, 500}
            assert statuses[500] > 20

    asyncio.run(scenario())


def test_the_limit_holds_in_a_burst_and_service_resumes(stack: LocalStack) -> None:
    for name in ("vllm-1", "vllm-2"):
        stack.start_sim(name, "--speed", "0.5")
    stack.stages["guard"] = {"max_active": 2}

    async def scenario() -> None:
        async with running(stack):
            burst = asyncio.gather(*(stack.ask(chat(max_tokens=20)) for _ in range(20)))
            held: list[int] = []
            is_over = False
            while not burst.done():
                state = await stack.state()
                held.append(max(b["own"] for b in state["backends"]))
                if state["decisions"]["reject"] == 16 and not is_over:
                    await stack.change_speed(20.0)
                    is_over = True
            answers = await burst
            assert max(held) == 2
            assert by_status(answers) == {200: 4, 503: 16}
            refused = [answer for answer in answers if answer.status == 503]
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
            assert all(b'"overloaded_error"' in answer.body for answer in refused)
            assert {answer.layer for answer in refused} == {"reject"}
            assert (await stack.ask()).is_complete

    asyncio.run(scenario())


def test_a_client_cannot_choose_a_backend(shared_stack: SharedStack) -> None:
    stack = shared_stack.stack

    async def scenario() -> None:
        spoofed = {"x-extproc-cluster": "vllm-1"}
        answers = await asyncio.gather(*(stack.ask(headers=spoofed) for _ in range(30)))
        assert {answer.backend for answer in answers} == {"vllm-1", "vllm-2"}
        nonsense = await stack.ask(headers={"x-extproc-cluster": "no-such-cluster"})
        assert nonsense.is_complete

    shared_stack.run(scenario())


BODIES: dict[str, tuple[bytes, dict[str, str], set[int]]] = {
    "empty": (b"", {}, {400}),
    "not JSON": (b"hello {", {}, {400}),
    "not an object": (b"[1, 2, 3]", {}, {400}),
    "no model": (b'{"messages": [{"role": "user", "content": "hi"}]}', {}, {200, 400, 404}),
    "deep nesting": (b'{"model": "sim", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", {}, {400}),
    "wrong content type": (
        b'{"model": "sim", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}',
        {"content-type": "text/plain"},
        {200, 400, 415},
    ),
    "invalid UTF-8": (
        b'{"model": "sim", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
        {},
        {200, 400},
    ),
    "numbers out of range": (b'{"model": "sim", "max_tokens": 1e999, "prompt": [1e400]}', {}, {400}),
}


@pytest.mark.parametrize("name", BODIES)
def test_an_odd_body_is_left_to_vllm_and_the_sidecar_is_unharmed(
    name: str, shared_stack: SharedStack
) -> None:
    stack = shared_stack.stack
    body, headers, statuses = BODIES[name]

    async def scenario() -> None:
        answer = await stack.ask(data=body, headers=headers)
        assert answer.status in statuses
        assert answer.backend in stack.backends, "it was placed, not refused"
        assert answer.layer == "least_load"
        await stack.until_idle()
        assert (await stack.ask()).is_complete

    shared_stack.run(scenario())


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


def test_large_and_chunked_bodies_are_placed_and_too_large_ones_get_413(shared_stack: SharedStack) -> None:
    stack = shared_stack.stack

    def padded(size: int) -> bytes:
        request = b'{"model":"sim","max_tokens":2,"messages":[{"role":"user","content":"hi"}],"pad":"%s"}'
        return request % (b"x" * size)

    async def scenario() -> None:
        large = await stack.ask(data=io.BytesIO(padded(10 << 20)))
        assert large.status == 200
        assert large.backend in stack.backends
        url = stack.envoy.url + "/v1/chat/completions"
        headers = {"content-type": "application/json"}
        async with stack.session.post(url, data=_in_pieces(padded(50_000)), headers=headers) as response:
            assert response.status == 200
            assert response.headers["x-extproc-backend"] in stack.backends
        assert (await stack.ask(data=io.BytesIO(padded(33 << 20)))).status == 413
        await stack.until_idle()

    shared_stack.run(scenario())


def test_other_endpoints_are_forwarded(shared_stack: SharedStack) -> None:
    stack = shared_stack.stack

    async def scenario() -> None:
        async with stack.session.get(f"{stack.envoy.url}/v1/models") as response:
            assert (await response.json())["data"][0]["id"] == "sim"
        embedding = await stack.ask({"model": "sim", "input": ["a", "b"]}, path="/v1/embeddings")
        assert embedding.status == 200
        completion = await stack.ask({"model": "sim", "prompt": [1, 2, 3]}, path="/v1/completions")
        assert completion.is_complete
        responses = await stack.ask({"model": "sim", "input": "hello"}, path="/v1/responses")
        assert responses.status == 200
        assert (await stack.ask({"model": "sim"}, path="/no/such/path")).status == 404

    shared_stack.run(scenario())


def test_what_is_recorded_and_counted_agrees_with_what_the_client_saw(stack: LocalStack) -> None:
    from extproc.adapters.files.sample_reading import read_samples

    pages: list[str] = []
    for name in ("vllm-1", "vllm-2"):
        stack.start_sim(name, "--speed", "1")

    async def scenario() -> list[Answer]:
        async with running(stack):
            answers = await stack.ask_many(40, concurrency=4, body=chat(words=300, max_tokens=4))
            await stack.until_idle()
            await stack.until_outcomes(40)
            pages.append(await stack.metrics_page())
            for path, status in (("/healthz", 200), ("/readyz", 200), ("/", 200), ("/nothing", 404)):
                async with stack.session.get(f"http://127.0.0.1:{stack.http_port}{path}") as response:
                    assert response.status == status, path
            return answers

    answers = asyncio.run(scenario())  # the sidecar has ended, so its samples are on disk
    samples = read_samples(stack.samples_path)
    seen = Counter(answer.backend for answer in answers)
    assert Counter(samples["backend"]) == seen
    for name, count in seen.items():
        assert f'extproc_outcomes_total{{backend="{name}",result="ok"}} {count}.0' in pages[0]
        assert f'extproc_ttft_seconds_count{{backend="{name}"}} {count}.0' in pages[0]
    decisions = re.findall(
        r'^extproc_decisions_total\{layer="least_load",.*\} (\S+)$', pages[0], re.MULTILINE
    )
    assert sum(map(float, decisions)) == 40
    assert all(samples["is_clean"])
    recorded_s, seen_s = sorted(samples["ttft_s"]), sorted(answer.ttft_s for answer in answers)
    later_s = [seen - recorded for recorded, seen in zip(recorded_s, seen_s, strict=True)]
    assert min(later_s) > -0.005
    # Client, Envoy and sims share two cores here, so at its best; `make test-vllm` holds the tight bound.
    assert min(later_s) < 0.05 < min(recorded_s)
