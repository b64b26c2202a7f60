import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.api import CHAT, COMPLETION, EMBEDDING, OTHER, RESPONSES, Api
from extproc.request.body_facts import InputSize
from extproc.request.header_rules import HeaderRules
from extproc.request.request import MAX_TENANT, Request, read_request
from extproc.request.token_ratio import RatioSample, TokenRatios

CHAT_PATH = "/v1/chat/completions"
CHAT_BODY = json.dumps(
    {"model": "m", "stream": True, "max_tokens": 9, "messages": [{"content": "x" * 400}]}
).encode()


def read(
    body: bytes | None = CHAT_BODY, *, path: str = CHAT_PATH, method: str = "POST", **headers: str
) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_request({":path": path, ":method": method, **named}, body, TokenRatios())


def test_chat_request_is_read_whole() -> None:
    assert read(x_extproc_priority="5") == Request(
        api=CHAT,
        path=CHAT_PATH,
        model="m",
        is_stream=True,
        input_size=InputSize(text_bytes=400),
        input_tokens=100,
        token_limit=9,
        priority=5,
        body_bytes=len(CHAT_BODY),
        has_body=True,
    )


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", COMPLETION),
        ("/v1/embeddings", EMBEDDING),
        ("/v1/responses", RESPONSES),
        ("/v1/responses/resp_1/cancel", OTHER),
        ("/v1/rerank", OTHER),
        ("/v2/v1/completions", OTHER),
        ("/V1/completions", OTHER),
        ("/", OTHER),
        ("", OTHER),
    ],
)
@pytest.mark.parametrize("suffix", ["", "/", "?a=b", "/?next=/v1/embeddings"])
def test_api_is_told_by_the_path(path: str, api: Api, suffix: str) -> None:
    request = read(path=path + suffix)
    assert (request.api, request.path) == (api, path.rstrip("/") or "/")


@pytest.mark.parametrize("method", ["GET", "PUT", "post", "OPTIONS"])
def test_only_post_is_an_inference_request(method: str) -> None:
    assert read(method=method).api is OTHER


@pytest.mark.parametrize("path", [CHAT_PATH, "/health"])
def test_request_without_body_has_no_input(path: str) -> None:
    request = read(None, path=path, method="GET")
    assert (request.api, request.has_body, request.body_bytes) == (OTHER, False, 0)
    assert (request.model, request.input_size, request.input_tokens) == (None, InputSize(), 0)


@pytest.mark.parametrize(
    ("header", "priority"),
    [
        ("7", 7),
        ("-7", -7),
        (" 7 ", 7),
        ("100", 100),
        ("101", 100),
        ("-9999999", -100),
        ("", 0),
        ("high", 0),
        ("1.5", 0),
        ("9" * 5000, 0),
    ],
)
def test_priority_is_an_integer_within_bounds(header: str, priority: int) -> None:
    assert read(x_extproc_priority=header).priority == priority
    assert read(None, x_extproc_priority=header).priority == priority


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "gzip, identity", "GZIP"])
def test_encoded_body_is_not_read(encoding: str) -> None:
    body = gzip.compress(CHAT_BODY)
    for sent in (body, CHAT_BODY):
        request = read(sent, content_encoding=encoding)
        assert (request.api, request.model, request.is_stream) == (CHAT, None, False)
        assert request.input_size == InputSize(text_bytes=len(sent))


@pytest.mark.parametrize("encoding", ["identity", "Identity ", ""])
def test_identity_is_no_encoding(encoding: str) -> None:
    assert read(content_encoding=encoding).model == "m"


def test_input_tokens_follow_the_learned_ratio() -> None:
    ratios = TokenRatios()
    for _ in range(100):
        ratios.learn(RatioSample("m", 50_000, 100_000, 1000))
    request = read_request({":path": CHAT_PATH, ":method": "POST"}, CHAT_BODY, ratios)
    assert request.input_tokens == pytest.approx(200, abs=1)


def tenant(name: str | None) -> str:
    headers = {":path": CHAT_PATH, ":method": "POST"} | ({} if name is None else {"x-tenant": name})
    return read_request(headers, CHAT_BODY, TokenRatios(), HeaderRules("x-tenant")).tenant


def test_the_tenant_is_read_where_a_header_is_configured_for_it() -> None:
    assert tenant("acme") == "acme"
    assert tenant(None) == ""
    assert read(x_tenant="acme").tenant == ""


def test_of_forwarded_addresses_the_one_that_envoy_added_is_the_tenant() -> None:
    headers = {":path": CHAT_PATH, ":method": "POST", "x-forwarded-for": "made up, 6.6.6.6, 10.0.0.7"}
    assert (
        read_request(headers, CHAT_BODY, TokenRatios(), HeaderRules("x-forwarded-for")).tenant == "10.0.0.7"
    )


def test_of_a_long_tenant_only_a_digest_is_kept() -> None:
    one, other = tenant("x" * 10_000 + "1"), tenant("x" * 10_000 + "2")
    assert one != other
    assert len(one) == len(other) <= MAX_TENANT
    assert one == tenant("x" * 10_000 + "1")


@given(st.text())
def test_any_tenant_is_read_and_short(name: str) -> None:
    assert len(tenant(name)) <= MAX_TENANT


@given(
    st.dictionaries(
        st.sampled_from([":path", ":method", "content-encoding", "x-extproc-priority"]), st.text()
    )
)
def test_any_headers_are_read(headers: dict[str, Any]) -> None:
    request = read_request(headers, CHAT_BODY, TokenRatios())
    assert -100 <= request.priority <= 100
    assert request.body_bytes == len(CHAT_BODY)
