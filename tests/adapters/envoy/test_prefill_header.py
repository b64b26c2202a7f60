"""A gateway whose pool has prefill servers: the header, and the accounts, over a real connection."""

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest
from support.build import an_endpoint, core_rules, fleet_rules, reserve
from support.in_loop import in_loop
from support.patience import until
from support.simulated_gateway import BODY, Call, Gateway, picking

from extproc.adapters.envoy.gateway_wire import PREFILLER
from extproc.fleet.inference_stage import InferenceStage
from extproc.routing.core import CoreRules
from extproc.routing.gateway_rules import GatewayRules

LONG_BODY = BODY.replace(b"hello", b"hello " * 20_000)
MEMBERS = (
    an_endpoint(1, stages=frozenset({InferenceStage.DECODE})),
    an_endpoint(2, stages=frozenset({InferenceStage.PREFILL})),
)
BUSY, ROOM = 4, 8


def small_pool() -> AbstractAsyncContextManager[Gateway]:
    """A picker of one server that decodes and one that prefills."""
    own = core_rules(fleet_rules(max_active=ROOM))
    rules = CoreRules(own.fleet, own.policy, own.admission, gateway=GatewayRules())
    return picking(rules, backends=MEMBERS)


async def prefiller_of(gateway: Gateway, call: Call, body: bytes = LONG_BODY) -> str | None:
    """Where a request for a busy server is to be prefilled."""
    decoding = gateway.core.registry.members[0]
    reserve(decoding, BUSY - decoding.own, asyncio.get_running_loop().time())
    await call.headers()
    await call.body(body)
    address, answer = await call.picked()
    assert address == "127.0.0.1:1"
    assert await call.returned_body() == body
    mutation = answer.request_headers.response.header_mutation
    named = [each.header.raw_value.decode() for each in mutation.set_headers if each.header.key == PREFILLER]
    assert (PREFILLER in mutation.remove_headers) == (not named)
    return named[0] if named else None


def in_flight(gateway: Gateway) -> tuple[int, ...]:
    return tuple(member.own for member in gateway.core.registry.members)


@in_loop
async def test_a_long_prompt_names_its_prefill_server_which_is_done_with_it_at_the_first_token() -> None:
    async with small_pool() as gateway:
        call = gateway.call()
        assert await prefiller_of(gateway, call) == "127.0.0.1:2"
        await call.response_headers()
        marked = await call.answer()
        assert marked is not None
        marks = marked.response_headers.response.header_mutation.set_headers
        assert {each.header.key: each.header.raw_value for each in marks}["x-extproc-prefiller"] == b"vllm-2"
        await call.response_body(b": a comment keeps it alive\n\n")
        await call.answer()
        assert in_flight(gateway) == (BUSY + 1, 1)
        await call.response_body(b"data: {}\n\n")
        await call.answer()
        assert in_flight(gateway) == (BUSY + 1, 0)
        await call.response_body(b"data: [DONE]\n\n", ends=True)
        await call.answer()
        await call.stream.done_writing()
        assert await call.answer() is None
        await until(lambda: in_flight(gateway) == (BUSY, 0) and len(gateway.entries) == 1)
        assert gateway.entries[0].metadata["prefiller"] == "vllm-2"


@in_loop
async def test_a_short_prompt_names_none() -> None:
    async with small_pool() as gateway:
        assert await prefiller_of(gateway, gateway.call(), BODY) is None
        assert in_flight(gateway) == (BUSY + 1, 0)


@pytest.mark.parametrize("has_begun", [False, True])
@in_loop
async def test_a_client_that_leaves_gives_both_places_back(has_begun: bool) -> None:
    async with small_pool() as gateway:
        call = gateway.call()
        assert await prefiller_of(gateway, call) is not None
        if has_begun:
            await call.response_headers()
            await call.answer()
        call.stream.cancel()
        await until(lambda: in_flight(gateway) == (BUSY, 0))


@in_loop
async def test_a_prefill_server_whose_requests_fail_is_named_no_more() -> None:
    async with small_pool() as gateway:
        decoding, prefilling = gateway.core.registry.members
        while not prefilling.breaker.is_tripped:
            call = gateway.call()
            assert await prefiller_of(gateway, call, LONG_BODY + b" " * len(gateway.entries)) is not None
            await call.response_headers({":status": "502"}, ends=True)
            await call.answer()
            await call.stream.done_writing()
            assert await call.answer() is None
            await until(lambda: in_flight(gateway) == (BUSY, 0))
        assert not decoding.breaker.is_tripped
        assert await prefiller_of(gateway, gateway.call()) is None
