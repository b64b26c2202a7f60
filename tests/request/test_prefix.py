import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.api import APIS, CHAT, COMPLETION, EMBEDDING, OTHER, RESPONSES, Api
from extproc.request.prefix import BLOCK_ENDS, read_prefix
from extproc.request.request import read_request
from extproc.request.token_ratio import TokenRatios


def message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


SYSTEM = message("system", "You are of use. " * 100)
FIRST = [SYSTEM, message("user", "What is a prefix? " * 60)]
SECOND = [*FIRST, message("assistant", "What comes before. " * 50), message("user", "And a chain? " * 40)]


def body(messages: object, **fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


def chain(content: bytes, api: Api = CHAT, model: str | None = "m") -> tuple[int, ...]:
    return read_prefix(api, content, model)[0]


def shared(one: bytes, other: bytes) -> int:
    """How many blocks two bodies have in common from the beginning on."""
    pairs = list(zip(chain(one), chain(other), strict=False))
    return next((number for number, (a, b) in enumerate(pairs) if a != b), len(pairs))


def test_a_turn_begins_with_the_blocks_of_the_one_before() -> None:
    first, second = body(FIRST, stream=True), body(SECOND, stream=True)
    assert len(chain(first)) >= 4
    assert shared(first, second) >= len(chain(first)) - 1
    assert len(chain(second)) > len(chain(first))


def test_conversations_share_the_system_prompt_and_no_more() -> None:
    one = body([SYSTEM, message("user", "A" * 2000)])
    other = body([SYSTEM, message("user", "B" * 2000)])
    common = next(n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    begin = one.index(b'"messages"')
    assert shared(one, other) == sum(end <= common - begin for end in BLOCK_ENDS)


def test_a_changed_byte_changes_its_block_and_all_that_follow() -> None:
    text = "x" * 8000
    one, other = body([message("user", text)]), body([message("user", text[:3000] + "y" + text[3001:])])
    common, length = shared(one, other), len(chain(one))
    assert 0 < common < length
    assert not set(chain(one)[common:]) & set(chain(other))


def test_fields_around_the_messages_make_no_difference() -> None:
    assert shared(body(SECOND), body(SECOND, max_tokens=5, stream=True)) >= len(chain(body(SECOND))) - 1
    reordered = json.dumps({"stream": True, "messages": SECOND, "model": "m"}).encode()
    assert shared(body(SECOND), reordered) >= len(chain(body(SECOND))) - 1


def test_models_share_nothing() -> None:
    assert not set(chain(body(SECOND), model="m")) & set(chain(body(SECOND), model="n"))


@pytest.mark.parametrize("filler", ["", "long " * 20_000])
def test_prompts_of_different_salts_share_nothing_and_those_of_one_salt_all(filler: str) -> None:
    """In short bodies, which are read in one go, and in long ones."""
    messages = [*SECOND, message("user", filler)]

    def salted(**fields: object) -> tuple[int, ...]:
        headers = {":method": "POST", ":path": "/v1/chat/completions"}
        return read_request(headers, body(messages, **fields), TokenRatios()).prefix

    plain = salted()
    for salt in ("a", "b", "\u6f22", 5, ["a"], {"a": 1}):
        assert not set(salted(cache_salt=salt)) & set(plain)
        assert salted(cache_salt=salt) == salted(cache_salt=salt)
    assert not set(salted(cache_salt="a")) & set(salted(cache_salt="b"))
    assert salted(cache_salt=None)[:-1] == plain[: len(plain) - 1]


@pytest.mark.parametrize(("api", "field"), [(COMPLETION, "prompt"), (RESPONSES, "input")])
def test_other_apis_have_their_prompts_elsewhere(api: Api, field: str) -> None:
    content = json.dumps({"model": "m", field: "once upon a time " * 200}).encode()
    assert len(chain(content, api)) > 3
    assert chain(content, EMBEDDING) == chain(content, OTHER) == ()


def test_a_short_prompt_and_an_unknown_model_have_no_blocks() -> None:
    assert chain(body([message("user", "hello")])) == ()
    assert chain(body(SECOND), model=None) == ()


def test_however_long_a_prompt_is_its_chain_is_bounded() -> None:
    blocks, prompt_bytes = read_prefix(CHAT, body([message("user", "a" * 5_000_000)]), "m")
    assert len(blocks) == len(BLOCK_ENDS) == 48
    assert prompt_bytes > 5_000_000


def test_blocks_grow_and_lose_an_eighth_at_most() -> None:
    for end, following in pairwise(BLOCK_ENDS):
        assert following - end == 512 or 8 * (following - end) <= following


@given(st.sampled_from((*APIS, OTHER)), st.binary(max_size=4000), st.none() | st.text(max_size=3))
def test_no_body_makes_it_raise(api: Api, content: bytes, model: str | None) -> None:
    marked = b'{"messages" "prompt" "input"' + content
    blocks, prompt_bytes = read_prefix(api, marked, model)
    assert len(blocks) == sum(end <= prompt_bytes for end in BLOCK_ENDS)
    assert (prompt_bytes > 0) == bool(blocks)


def test_a_request_carries_the_chain_of_what_it_asks_also_if_its_body_is_large() -> None:
    headers = {":method": "POST", ":path": "/v1/chat/completions"}
    for content in (body(SECOND), body([message("user", "long " * 20_000)])):
        request = read_request(headers, content, TokenRatios())
        assert (request.prefix, request.prompt_bytes) == read_prefix(CHAT, content, "m")
        assert request.prefix
    packed = read_request({**headers, "content-encoding": "gzip"}, body(SECOND), TokenRatios())
    assert packed.prefix == ()
