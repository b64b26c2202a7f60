"""Each order of messages that a gateway sends, over a real connection, with a real core behind it."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from support.build import MAX_ACTIVE, core_rules, fleet_rules, reserve
from support.garbage import no_garbage
from support.h2_socket_client import connected, prefixed
from support.in_loop import in_loop
from support.patience import until
from support.served import PROCESS
from support.simulated_gateway import (
    BODY,
    CHAT_HEADERS,
    DUPLEX,
    SSE_HEADERS,
    Call,
    Gateway,
    header_map,
    picking,
)

from extproc.adapters.envoy.gateway_calls import PickCall
from extproc.adapters.envoy.gateway_wire import DESTINATION
from extproc.adapters.protos import ext_proc_pb2 as pb
from extproc.exchange.gateway_exchange import GatewayExchange
from extproc.h2 import grpc_call as h2_call
from extproc.outcomes.response_end import TokenUsage
from extproc.routing.core import CoreRules
from extproc.routing.gateway_rules import GatewayRules
from extproc.routing.queue.request_queue import QueueRules

SERVING, NOT_SERVING = 1, 2
ADDRESSES = {"127.0.0.1:1", "127.0.0.1:2"}
USAGE = (
    b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, '
    b'"prompt_tokens_details": {"cached_tokens": 8}}}\n\ndata: [DONE]\n\n'
)


def rules(max_endpoints: int = 1, queue: QueueRules | None = None) -> CoreRules:
    fleet = None if queue is None else fleet_rules(resume_load=MAX_ACTIVE - 1)
    own = core_rules(fleet, queue=queue)
    return CoreRules(own.fleet, own.policy, own.admission, own.queue, gateway=GatewayRules(max_endpoints))


async def respond(call: Call, *parts: bytes, headers: dict[str, str] = SSE_HEADERS) -> None:
    """A response, each part of which comes back as it is."""
    await call.response_headers(headers)
    marked = await call.answer()
    assert marked is not None
    headers = marked.response_headers.response.header_mutation.set_headers
    assert {each.header.key for each in headers} == {
        "x-extproc-backend",
        "x-extproc-layer",
        "x-extproc-reason",
    }
    for number, part in enumerate(parts, 1):
        await call.response_body(part, ends=number == len(parts))
        answer = await call.answer()
        assert answer is not None
        returned = answer.response_body.response.body_mutation.streamed_response
        assert (returned.body, returned.end_of_stream) == (part, number == len(parts))


@in_loop
async def test_a_streamed_chat() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        address = await call.placed()
        assert address in ADDRESSES
        assert gateway.own == 1
        await respond(call, b"data: {}\n\n", USAGE, b"")
        await call.stream.done_writing()
        assert await call.answer() is None
        await gateway.until_idle()
        (entry,) = gateway.entries
        assert (entry.status, entry.response_flags, entry.usage) == (200, frozenset(), TokenUsage(9, 3, 8))
        assert gateway.core.feedback.counts.by_result == {(entry.metadata["backend"], "ok"): 1}
        assert float(entry.tags["ttft_us"]) > 0


@in_loop
async def test_a_whole_answer_in_parts_whose_usage_is_read() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.headers(headers=CHAT_HEADERS | {"content-length": str(len(BODY))})
        await call.body(BODY)
        await call.picked()
        await call.returned_body()
        answer = json.dumps({"choices": [{}] * 500, "usage": {"prompt_tokens": 9, "completion_tokens": 3}})
        json_headers = {":status": "200", "content-type": "application/json"}
        await respond(call, answer[:700].encode(), answer[700:].encode(), headers=json_headers)
        await call.stream.done_writing()
        assert await call.answer() is None
        await gateway.until_idle()
        (entry,) = gateway.entries
        assert (entry.usage, entry.response_body_bytes) == (TokenUsage(9, 3, None), len(answer))


@in_loop
async def test_parts_of_a_response_of_any_size_come_back_as_they_are() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.placed()
        await respond(call, b"d", b"ata: {}", b"x" * 4_000_000, b"\n", b"\n\n", b"")
        assert gateway.server.protocol_errors == 0


@in_loop
async def test_a_part_of_a_response_does_not_wait_for_a_request_that_came_before_it() -> None:
    config = pb.ProtocolConfiguration(**DUPLEX)
    headers = pb.HttpHeaders(headers=header_map(CHAT_HEADERS))
    begun = pb.ProcessingRequest(request_headers=headers, protocol_config=config)
    whole = pb.ProcessingRequest(request_body=pb.HttpBody(body=BODY, end_of_stream=True))
    part = pb.ProcessingRequest(response_body=pb.HttpBody(body=b"data: {}"))
    async with picking(rules()) as gateway, connected(gateway.port) as client:
        streaming, placed = client.begin(PROCESS), client.begin(PROCESS)
        client.send(streaming, prefixed(begun.SerializeToString()))
        client.send(placed, prefixed(begun.SerializeToString()))
        client.h2.send_data(placed, prefixed(whole.SerializeToString()))
        client.send(streaming, prefixed(part.SerializeToString()))
        await client.until(lambda: len(client.answers) == 2)
        assert list(client.answers) == [streaming, placed]


@in_loop
async def test_requests_that_have_ended_leave_nothing_to_the_garbage_collector() -> None:
    async with picking(rules()) as gateway:
        with no_garbage(PickCall, GatewayExchange, h2_call.Call):
            for parts in ((b"data: {}",), (b"data: {}", b"")):
                call = gateway.call()
                await call.placed()
                await respond(call, *parts)
                call.stream.cancel()
                await gateway.until_idle()


@in_loop
async def test_a_fault_while_a_request_is_placed_ends_its_call_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with picking(rules()) as gateway:
        with monkeypatch.context() as faulty:
            faulty.setattr(GatewayExchange, "decide", None)
            call = gateway.call()
            await call.headers()
            await call.body(BODY)
            assert await call.stream.code() == grpc.StatusCode.UNKNOWN
        await gateway.call().placed()
    assert "call_failed" in caplog.text


@pytest.mark.parametrize("status", ["502", "503", "504"])
@in_loop
async def test_what_a_gateway_answers_in_place_of_a_server_is_that_servers_failure(status: str) -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.placed()
        await respond(call, b"upstream connect error", headers={":status": status})
        await call.stream.done_writing()
        assert await call.answer() is None
        await gateway.until_idle()
        (result,) = gateway.core.feedback.counts.by_result
        assert result[1] == "server_error"


@in_loop
async def test_a_response_that_breaks_off_gives_the_place_back_without_blame() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.placed()
        await call.response_headers()
        await call.answer()
        await call.response_body(b"data: {}\n\n")
        await call.answer()
        await call.stream.done_writing()
        assert await call.answer() is None
        await gateway.until_idle()
        (result,) = gateway.core.feedback.counts.by_result
        assert result[1] == "client_left"


@pytest.mark.parametrize("size", [1, 16_000, 4_000_000])
@in_loop
async def test_a_body_in_parts_of_any_size(size: int) -> None:
    body = BODY if size == 1 else BODY.replace(b"hello", b"hello " * 1_000_000)
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.headers(headers=CHAT_HEADERS | {"content-length": str(len(body))})
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        sending = asyncio.create_task(call.body(*parts))
        _, answer = await call.picked()
        assert await call.returned_body() == body
        await sending
        lengths = [
            each.header.raw_value
            for each in answer.request_headers.response.header_mutation.set_headers
            if each.header.key == "content-length"
        ]
        assert lengths == [str(len(body)).encode()]
        call.stream.cancel()
        await gateway.until_idle()


@in_loop
async def test_a_last_part_that_comes_twice_is_ignored() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.headers()
        await call.body(BODY)
        await call.body(BODY)
        await call.picked()
        assert await call.returned_body() == BODY
        await respond(call, b"x", b"")
        assert gateway.server.protocol_errors == 0


@in_loop
async def test_trailers_of_a_request_are_answered_after_its_body() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.headers()
        await call.body(BODY, ends=False)
        await call.trailers()
        await call.picked()
        part, trailers = await call.answer(), await call.answer()
        assert part is not None
        assert trailers is not None
        returned = part.request_body.response.body_mutation.streamed_response
        assert (returned.body, returned.end_of_stream) == (BODY, False)
        assert trailers.WhichOneof("response") == "request_trailers"


@in_loop
async def test_trailers_of_a_response_end_it() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.placed()
        await call.response_headers()
        await call.answer()
        await call.response_trailers()
        answer = await call.answer()
        assert answer is not None
        assert answer.WhichOneof("response") == "response_trailers"
        await call.stream.done_writing()
        await gateway.until_idle()
        assert not gateway.entries[0].response_flags


@in_loop
async def test_a_request_without_a_body_is_answered_at_once() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.headers(ends=True, headers={":method": "GET", ":path": "/health"})
        address, _ = await call.picked()
        assert address in ADDRESSES
        call.stream.cancel()
        await gateway.until_idle()


@pytest.mark.parametrize("mode", ["BUFFERED", "BUFFERED_PARTIAL"])
@in_loop
async def test_a_gateway_that_buffers(mode: str) -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.headers({"request_body_mode": mode, "response_body_mode": mode})
        passed = await call.answer()
        assert passed is not None
        assert passed.WhichOneof("response") == "request_headers"
        assert passed.mode_override.response_trailer_mode == passed.mode_override.SEND
        await call.body(BODY)
        _, answer = await call.picked()
        assert answer.WhichOneof("response") == "request_body"
        assert answer.request_body.response.clear_route_cache
        assert not answer.request_body.response.HasField("body_mutation")
        await call.response_headers()
        await call.answer()
        await call.response_body(b"x", ends=True)
        answered = await call.answer()
        assert answered is not None
        assert not answered.response_body.response.HasField("body_mutation")


@in_loop
async def test_a_gateway_that_streams_one_way() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.headers({"request_body_mode": "STREAMED", "response_body_mode": "STREAMED"})
        await call.picked()
        await call.body(BODY)
        answer = await call.answer()
        assert answer is not None
        assert answer.WhichOneof("response") == "request_body"
        assert not answer.request_body.response.HasField("body_mutation")


@in_loop
async def test_a_gateway_that_shows_only_the_request_counts_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As NGINX Gateway Fabric does: no path, no modes, plain values, and the call is half-closed at once."""
    monkeypatch.setattr("extproc.adapters.envoy.gateway_calls.UNSEEN_S", 0.2)
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.headers(None, headers={"Content-Type": "application/json"}, is_raw=False)
        await call.body(BODY)
        await call.stream.done_writing()
        await call.picked()
        assert await call.returned_body() == BODY
        assert await call.answer() is None
        assert await call.stream.code() == grpc.StatusCode.OK
        assert gateway.own == 1
        await gateway.until_idle()
        assert gateway.entries == []


@in_loop
async def test_such_a_gateway_waits_in_the_queue_too() -> None:
    async with picking(rules(queue=QueueRules()), backends=1) as gateway:
        calls = await fill(gateway)
        waiting = gateway.call()
        await waiting.headers(None)
        await waiting.body(BODY)
        await waiting.stream.done_writing()
        assert gateway.core.queue is not None
        queue = gateway.core.queue
        await until(lambda: queue.waiting == 1)
        calls[0].stream.cancel()
        await waiting.picked()
        assert await waiting.returned_body() == BODY
        assert await waiting.answer() is None


@pytest.mark.parametrize(
    "subset",
    [
        ["127.0.0.1:2", "10.9.9.9:1"],
        ["127.0.0.1:1,127.0.0.1:2", "127.0.0.1:3"],
        "127.0.0.1:2, 10.9.9.9:1",
        ["127.0.0.1"],
    ],
    ids=["some of them", "with the best", "a text", "every port of an address"],
)
@in_loop
async def test_only_allowed_endpoints_are_chosen_and_of_these_the_best(subset: Any) -> None:
    async with picking(rules(), backends=3) as gateway:
        one, _, three = gateway.core.registry.members
        reserve(one, 2, asyncio.get_running_loop().time())
        reserve(three, 2, asyncio.get_running_loop().time())
        call = gateway.call()
        await call.headers(subset=subset)
        await call.body(BODY)
        address, _ = await call.picked()
        assert address == "127.0.0.1:2"
        call.stream.cancel()
        await until(lambda: gateway.server.open_streams == 0)


async def refusal(call: Call) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of an answer in place of the server's, after which the call ends."""
    answer = await call.answer()
    assert answer is not None
    immediate = answer.immediate_response
    headers = {each.header.key: each.header.raw_value.decode() for each in immediate.headers.set_headers}
    assert await call.answer() is None
    assert await call.stream.code() == grpc.StatusCode.OK
    return immediate.status.code, headers, json.loads(immediate.body)


@pytest.mark.parametrize(
    ("backends", "subset"), [(2, []), (2, ["10.9.9.9:1"]), (0, None)], ids=["none", "unknown", "no pods"]
)
@in_loop
async def test_without_an_endpoint_that_is_allowed_it_is_503(backends: int, subset: Any) -> None:
    async with picking(rules(), backends=backends) as gateway:
        call = gateway.call()
        await call.headers(subset=subset)
        await call.body(BODY)
        status, headers, body = await refusal(call)
        assert (status, headers["x-llm-d-request-dropped-reason"]) == (503, "rejected-no-endpoints")
        assert body["error"]["code"] == 503


async def fill(gateway: Gateway) -> list[Call]:
    """As many requests as one backend takes."""
    calls = [gateway.call() for _ in range(MAX_ACTIVE)]
    for call in calls:
        await call.placed()
    return calls


@in_loop
async def test_a_saturated_fleet_is_429_with_a_time_to_come_back() -> None:
    async with picking(rules(), backends=1) as gateway:
        await fill(gateway)
        call = gateway.call()
        await call.headers()
        await call.body(BODY)
        status, headers, body = await refusal(call)
        assert (status, headers["x-llm-d-request-dropped-reason"]) == (429, "rejected-saturated")
        assert int(headers["retry-after"]) >= 1
        assert body["error"]["type"] == "overloaded_error"


@in_loop
async def test_a_request_waits_in_the_queue_without_a_word_and_is_let_in() -> None:
    async with picking(rules(queue=QueueRules()), backends=1) as gateway:
        calls = await fill(gateway)
        waiting = gateway.call()
        await waiting.headers()
        await waiting.body(BODY)
        assert gateway.core.queue is not None
        queue = gateway.core.queue
        await until(lambda: queue.waiting == 1)
        calls[0].stream.cancel()
        await waiting.picked()
        assert await waiting.returned_body() == BODY


@in_loop
async def test_a_client_that_leaves_the_queue_leaves_no_trace() -> None:
    async with picking(rules(queue=QueueRules()), backends=1) as gateway:
        await fill(gateway)
        left, closed = gateway.call(), gateway.call()
        for call in (left, closed):
            await call.headers()
            await call.body(BODY)
        assert gateway.core.queue is not None
        queue = gateway.core.queue
        await until(lambda: queue.waiting == 2)
        left.stream.cancel()
        await closed.stream.done_writing()
        await until(lambda: queue.waiting == 0)


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "half-close"])
@pytest.mark.parametrize("steps", range(7))
@in_loop
async def test_an_end_at_any_step_gives_the_place_back(steps: int, is_reset: bool) -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        moves = [
            call.headers,
            lambda: call.body(BODY[:9], ends=False),
            lambda: call.body(BODY[9:]),
            call.response_headers,
            lambda: call.response_body(b"data: {}\n\n"),
            lambda: call.response_body(b"data: {}\n\n"),
        ]
        for move in moves[:steps]:
            await move()
        if steps > 2:
            await call.picked()
        if is_reset:
            call.stream.cancel()
        else:
            await call.stream.done_writing()
        await gateway.until_idle()
        if steps > 3:
            await until(lambda: len(gateway.entries) == 1)
            assert gateway.entries[0].response_flags == {"DC"}


@in_loop
async def test_a_body_beyond_the_limit_is_413() -> None:
    async with picking(rules(), max_body_bytes=2000) as gateway:
        call = gateway.call()
        await call.headers()
        await call.body(bytes(1500), bytes(1500), ends=False)
        assert (await refusal(call))[0] == 413
        await gateway.until_idle()


@in_loop
async def test_half_a_body_is_400() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.headers(headers=CHAT_HEADERS | {"content-length": "1000"})
        await call.body(BODY)
        assert (await refusal(call))[0] == 400


@in_loop
async def test_json_that_nothing_can_read_goes_to_a_server_which_says_so() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        await call.headers()
        await call.body(b"{no json")
        await call.picked()
        assert await call.returned_body() == b"{no json"


@in_loop
async def test_messages_that_can_come_in_no_order_end_the_call_and_no_other() -> None:
    async with picking(rules()) as gateway:
        good, bad = gateway.call(), gateway.call()
        await good.placed()
        await bad.headers()
        await bad.headers()
        assert await bad.stream.code() == grpc.StatusCode.INVALID_ARGUMENT
        await respond(good, b"x", b"")
        assert gateway.server.protocol_errors == 1


@in_loop
async def test_a_request_is_booked_on_the_server_that_has_served_it() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        chosen = await call.placed()
        (other,) = ADDRESSES - {chosen}
        await call.response_headers(served=other)
        await call.answer()
        by_address = {each.endpoint.address: each.own for each in gateway.core.registry.members}
        assert (by_address[chosen], by_address[other]) == (0, 1)
        call.stream.cancel()
        await gateway.until_idle()


@in_loop
async def test_a_gateway_that_takes_lists_gets_one() -> None:
    async with picking(rules(max_endpoints=2)) as gateway:
        call = gateway.call()
        await call.headers()
        await call.body(BODY)
        addresses, _ = await call.picked()
        assert set(addresses.split(",")) == ADDRESSES


@in_loop
async def test_where_it_is_wanted_the_call_ends_with_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extproc.adapters.envoy.gateway_calls.UNSEEN_S", 0.2)
    async with picking(rules(), ends_after_request=True) as gateway:
        call = gateway.call()
        await call.placed()
        assert await call.answer() is None
        assert await call.stream.code() == grpc.StatusCode.OK
        assert gateway.own == 1
        await gateway.until_idle()


@in_loop
async def test_destinations_that_a_client_asks_for_are_overwritten_or_removed() -> None:
    async with picking(rules()) as gateway:
        call = gateway.call()
        named = {DESTINATION: "6.6.6.6:1", "x-prefiller-host-port": "6.6.6.6:1"}
        await call.headers(headers=CHAT_HEADERS | named)
        await call.body(BODY)
        address, answer = await call.picked()
        assert address in ADDRESSES
        assert "x-prefiller-host-port" in answer.request_headers.response.header_mutation.remove_headers


@pytest.mark.parametrize(
    "service",
    [
        "",
        "liveness",
        "readiness",
        "inference-extension",
        "envoy.service.ext_proc.v3.ExternalProcessor",
    ],
)
@in_loop
async def test_health_has_a_port_of_its_own(service: str) -> None:
    async with picking(rules()) as gateway:
        assert await gateway.health(service) == SERVING


@in_loop
async def test_a_service_that_is_not_there_has_no_health() -> None:
    async with picking(rules()) as gateway:
        with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
            await gateway.health("other")


@in_loop
async def test_while_draining_it_serves_on_and_says_that_it_does_not() -> None:
    async with picking(rules(), drain_s=20.0, finish_s=20.0) as gateway:
        before = gateway.call()
        await before.placed()
        draining = asyncio.create_task(gateway.server.drain())
        await until(lambda: gateway.server.is_draining)
        assert await gateway.health("readiness") == NOT_SERVING
        assert await gateway.health("liveness") == SERVING  # else the kubelet would kill it
        late = gateway.call()
        await late.placed()
        for call in (before, late):
            await respond(call, b"x", b"")
        draining.cancel()


@in_loop
async def test_requests_in_flight_are_brought_to_their_end_before_it_stops() -> None:
    async with picking(rules(), drain_s=0.0, finish_s=20.0) as gateway:
        call = gateway.call()
        await call.placed()
        draining = asyncio.create_task(gateway.server.drain())
        await until(lambda: gateway.server.is_draining)
        await respond(call, b"data: {}\n\n", USAGE, b"")
        await call.stream.done_writing()
        assert await call.answer() is None
        await draining
        assert not gateway.entries[0].response_flags
        assert gateway.own == 0


@in_loop
async def test_at_the_very_end_what_is_placed_goes_on_without_it() -> None:
    async with picking(rules(), drain_s=0.0, finish_s=0.1) as gateway:
        call = gateway.call()
        await call.placed()
        await gateway.server.drain()
        assert await call.answer() is None
        assert await call.stream.code() == grpc.StatusCode.OK


@in_loop
async def test_a_request_that_is_placed_at_the_very_end_goes_on_without_it_too() -> None:
    async with picking(rules()) as gateway:
        gateway.server.is_ending = True
        call = gateway.call()
        await call.placed()
        assert await call.answer() is None
        assert await call.stream.code() == grpc.StatusCode.OK


@in_loop
async def test_many_streams_at_once() -> None:
    async with picking(rules(queue=QueueRules()), backends=30) as gateway:

        async def one() -> None:
            call = gateway.call()
            await call.placed()
            await respond(call, *[b"data: {}\n\n"] * 5, b"")
            await call.stream.done_writing()
            assert await call.answer() is None

        await asyncio.gather(*(one() for _ in range(100)))
        await gateway.until_idle()
        assert len(gateway.entries) == 100


async def molest(gateway: Gateway, rng: random.Random) -> None:
    """One call whose messages come in any order, twice or as garbage, and which ends in any way."""
    call = gateway.call()

    def messages() -> list[Callable[[], Awaitable[None]]]:
        modes = rng.choice(
            [None, DUPLEX, {"request_body_mode": rng.choice(["BUFFERED", "STREAMED", "NONE"])}]
        )
        return [
            lambda: call.headers(modes, ends=rng.random() < 0.1),
            lambda: call.body(BODY[:9], ends=False),
            lambda: call.body(BODY[9:]),
            lambda: call.body(b"", ends=rng.random() < 0.5),
            call.trailers,
            lambda: call.response_headers(served=rng.choice([None, "127.0.0.1:1", "garbage"])),
            lambda: call.response_body(rng.randbytes(rng.randrange(200)), ends=rng.random() < 0.3),
            call.response_trailers,
            lambda: call.stream.write(rng.randbytes(rng.randrange(40))),
        ]

    chosen = messages()
    if rng.random() < 0.5:
        rng.shuffle(chosen)
    try:
        for message in chosen[: rng.randrange(1, 10)]:
            for _ in range(rng.choice([1, 1, 1, 2])):
                await message()
        if rng.random() < 0.5:
            await call.stream.done_writing()
        await asyncio.sleep(0)
    except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
        pass  # the picker has ended the call
    call.stream.cancel()


@pytest.mark.parametrize("seed", range(2))
@in_loop
async def test_whatever_a_gateway_sends_nothing_is_left_and_others_are_served(seed: int) -> None:
    rng = random.Random(seed)
    async with picking(rules(queue=QueueRules()), backends=3, max_body_bytes=2000) as gateway:
        for _ in range(10):
            await asyncio.gather(*(molest(gateway, rng) for _ in range(20)))
            good = gateway.call()
            await good.placed()
            await respond(good, b"x", b"")
            good.stream.cancel()
        await gateway.until_idle()
        assert gateway.core.queue is not None
        assert gateway.core.queue.waiting == 0
        assert gateway.server.protocol_errors > 20


def test_the_names_are_those_of_the_protocol() -> None:
    assert DESTINATION == "x-gateway-destination-endpoint"
    assert SSE_HEADERS[":status"] == "200"
    assert set(DUPLEX.values()) == {"FULL_DUPLEX_STREAMED"}
