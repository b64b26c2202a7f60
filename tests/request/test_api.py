import json
from dataclasses import replace
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields
from support.toy_api import TOY, TOY_BODY

from extproc.request import api as table
from extproc.request.api import APIS, APIS_BY_KIND, APIS_BY_PATH, CHAT, OTHER, Api
from extproc.request.body import read_body
from extproc.request.body_facts import InputSize
from extproc.request.input_size import PlainChat
from extproc.request.prefix import read_prefix
from extproc.request.request import Request, read_request
from extproc.request.token_ratio import TokenRatios

LONG_WAY = replace(CHAT, read_plain=None)


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
    assert {row for row in vars(table).values() if isinstance(row, Api)} == {*APIS, OTHER}


def test_no_two_rows_share_a_kind_or_a_path() -> None:
    assert len(APIS_BY_KIND) == len(APIS_BY_PATH) == len(APIS)
    assert OTHER.kind not in APIS_BY_KIND


@pytest.mark.parametrize("api", APIS, ids=attrgetter("kind"))
def test_every_row_is_complete(api: Api) -> None:
    assert api.path.startswith("/v1/")
    assert api.path == api.path.rstrip("/")
    assert api.input_fields
    assert api.read_size is not None
    assert bool(api.token_limit_fields) == api.is_generation
    assert api.is_generation or not api.first_byte_is_first_token


def test_the_short_way_to_read_a_chat_knows_all_fields_of_its_row() -> None:
    read = {"model", "stream", "cache_salt", *CHAT.input_fields, *CHAT.token_limit_fields}
    assert {field.encode_name for field in fields(PlainChat)} == read


texts = st.text(max_size=40)
limits = st.none() | st.integers(-1, 2**31) | st.just("9")
chats = st.fixed_dictionaries(
    {"messages": st.lists(st.fixed_dictionaries({"content": texts}, optional={"name": st.none() | texts}))},
    optional={
        "model": texts,
        "stream": st.booleans(),
        "max_tokens": limits,
        "max_completion_tokens": limits,
        "tools": st.none() | st.just([{"type": "function"}]),
    },
)


@given(chats, st.booleans())
def test_the_short_way_to_read_a_chat_gives_the_same_facts(chat: dict[str, Any], ensure_ascii: bool) -> None:
    body = json.dumps(chat, ensure_ascii=ensure_ascii).encode()
    assert read_body(CHAT, body) == read_body(LONG_WAY, body)
