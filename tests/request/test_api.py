import json
from dataclasses import replace
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.toy_api import TOY, TOY_BODY

from extproc.request import api as table
from extproc.request.api import (
    APIS,
    APIS_BY_KIND,
    APIS_BY_PATH,
    CHAT,
    GRPC,
    MESSAGES,
    OTHER,
    RESPONSES,
    Api,
    api_at,
)
from extproc.request.body import read_body
from extproc.request.body_facts import InputSize
from extproc.request.prefix import read_prefix
from extproc.request.request import Request, read_request
from extproc.request.token_ratio import TokenRatios
from extproc.request.usual_shape import read_usual


def read_toy(body: bytes, method: str = "POST") -> Request:
    headers = {":path": TOY.path, ":method": method}
    return read_request(headers, body, TokenRatios(), apis={**APIS_BY_PATH, TOY.path: TOY})


def test_a_row_is_enough_to_read_the_requests_of_an_api() -> None:
    request = read_toy(TOY_BODY)
    assert (request.api, request.path, request.model, request.is_stream) == (TOY, "/v1/toy", "m", True)
    assert (request.input_size, request.token_limit) == (InputSize(text_bytes=2000), 7)
    begin = TOY_BODY.index(b'"text"')
    assert (len(request.prefix), request.prompt_bytes) == (3, len(TOY_BODY) - begin)
    assert (request.prefix, request.prompt_bytes) == read_prefix(TOY, TOY_BODY, "m")


def test_an_api_without_a_row_and_a_request_that_is_no_post_are_of_no_known_api() -> None:
    unknown = read_request({":path": TOY.path, ":method": "POST"}, TOY_BODY, TokenRatios())
    for request in (unknown, read_toy(TOY_BODY, "PUT")):
        assert (request.api, request.model, request.token_limit, request.prefix) == (OTHER, "m", None, ())
        assert request.input_size == InputSize(text_bytes=len(TOY_BODY))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_toys": 5, "max_tokens": 6}, 5),
        ({"max_toys": None, "max_tokens": 6}, 6),
        ({"max_toys": "many", "max_tokens": 6}, 6),
        ({"max_completion_tokens": 6}, None),
    ],
)
def test_the_first_limit_that_is_one_counts(limits: dict[str, Any], expected: int | None) -> None:
    assert read_body(TOY, json.dumps({"text": "a", **limits}).encode()).token_limit == expected


def test_the_readers_of_sizes_get_the_fields_in_the_order_of_the_row() -> None:
    given: list[bytes] = []

    def read_size(*raw: Any) -> InputSize:
        given.extend(map(bytes, raw))
        return InputSize(exact_tokens=3)

    api = replace(TOY, input_fields=("text", "absent", "more"), read_size=read_size)
    facts = read_body(api, b'{"more": [1, 2], "text": "a"}')
    assert (given, facts.input_size) == ([b'"a"', b"", b"[1, 2]"], InputSize(exact_tokens=3))


def test_no_row_is_left_out_of_the_table() -> None:
    assert {row for row in vars(table).values() if isinstance(row, Api)} == {*APIS, GRPC, OTHER}


def test_no_two_rows_share_a_kind_or_a_path() -> None:
    assert {api.kind: api for api in (*APIS, GRPC)} == APIS_BY_KIND
    assert len(APIS_BY_KIND) == len(APIS) + 1
    assert len(APIS_BY_PATH) == sum(len(api.paths) for api in APIS)
    assert OTHER.kind not in APIS_BY_KIND


@pytest.mark.parametrize("api", APIS, ids=attrgetter("kind"))
def test_every_row_is_complete(api: Api) -> None:
    for path in api.paths:
        assert path.startswith("/")
        assert path == path.rstrip("/")
    assert api.read_size is not None
    assert api.input_fields or api.read_size() == InputSize()
    assert bool(api.token_limit_fields) == api.is_generation
    assert api.input_fields or not (api.is_generation or api.answer_shape)
    assert api.is_generation or not api.first_byte_is_first_token
    assert len(api.usual_types) in {0, len(api.input_fields)}


texts = st.text(max_size=40)
odd = st.just(7) | st.just(["text"]) | st.just({"text": "t"})
maybe_text = st.none() | texts | odd
types = st.sampled_from(
    ["text", "input_text", "image_url", "tool_use", "tool_result", "thinking", "document"]
)


def parts(content: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = {"type": types | odd, "text": maybe_text, "thinking": maybe_text, "name": maybe_text}
    more = {"input": maybe_text | st.none(), "content": content, "image_url": st.just({"url": "u"})}
    return maybe_text | st.lists(st.fixed_dictionaries({}, optional=fields | more) | odd, max_size=3)


contents = parts(parts(parts(maybe_text)))
calls = st.fixed_dictionaries(
    {},
    optional={"function": st.fixed_dictionaries({}, optional={"name": maybe_text, "arguments": maybe_text})},
)
message_fields = {
    "content": contents,
    "output": contents,
    "name": maybe_text,
    "arguments": maybe_text,
    "tool_calls": st.none() | st.lists(calls, max_size=2) | odd,
}
messages = st.lists(st.fixed_dictionaries({}, optional=message_fields) | odd, max_size=3)
limits = st.none() | st.integers(-1, 2**31) | st.just("9")
bodies = st.fixed_dictionaries(
    {},
    optional={
        "model": maybe_text,
        "stream": st.booleans() | odd,
        "messages": messages | odd,
        "input": messages | maybe_text,
        "system": contents,
        "instructions": maybe_text,
        "tools": st.none() | st.just([{"type": "function"}]) | odd,
        "max_tokens": limits,
        "max_completion_tokens": limits,
        "max_output_tokens": limits,
        "previous_response_id": maybe_text,
        "cache_salt": st.none() | texts,
        # names that the reader has for itself
        "limit": limits,
        "other_limit": limits,
        "first": texts,
    },
)


@settings(max_examples=300)
@given(st.sampled_from([api for api in APIS if api.usual_types]), bodies, st.booleans())
def test_a_body_of_the_usual_shape_has_the_same_facts_as_by_the_long_way(
    api: Api, fields: dict[str, Any], ensure_ascii: bool
) -> None:
    body = json.dumps(fields, ensure_ascii=ensure_ascii).encode()
    assert read_body(api, body) == read_body(replace(api, usual_types=()), body)


def test_the_usual_shapes_are_those_of_conversations() -> None:
    usual = {
        CHAT: {"messages": [{"content": "four", "tool_calls": [{"function": {"arguments": "{}"}}]}]},
        RESPONSES: {"input": [{"content": [{"type": "input_text", "text": "four"}]}, {"output": "ok"}]},
        MESSAGES: {"system": "ok", "messages": [{"content": [{"type": "text", "text": "four"}]}]},
    }
    assert list(usual) == [api for api in APIS if api.usual_types]
    for api, fields in usual.items():
        facts = read_usual(api, json.dumps({"model": "m", **fields}).encode())
        assert facts is not None
        assert facts.input_size.text_bytes == 6


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/vllm.Inference/GenerateStream", GRPC),
        ("/sglang.grpc.scheduler.SglangScheduler/Generate", GRPC),
        ("/v1.5/Generate", OTHER),
        ("/Greeter/SayHello", OTHER),  # without a package: a path as any other
        ("/v1/chat/completions", CHAT),
        ("/a.B/C/d", OTHER),
        ("/", OTHER),
    ],
)
def test_a_call_of_grpc_is_known_by_the_form_of_its_path(path: str, api: Api) -> None:
    assert api_at(path) is api
