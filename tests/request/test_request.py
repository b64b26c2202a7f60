import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extproc.request.api import (
    CHAT,
    CLASSIFY,
    COMPLETION,
    COUNT_TOKENS,
    EMBEDDING,
    GRPC,
    IMAGES,
    MESSAGES,
    OTHER,
    POOLING,
    REALTIME,
    RERANK,
    RESPONSES,
    SCORE,
    SPEECH,
    TOKENIZE,
    TRANSCRIPTION,
    Api,
)
from extproc.request.body_facts import InputSize
from extproc.request.header_rules import HeaderRules
from extproc.request.request import MAX_TENANT, Request, is_placed_by_headers, read_request
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
        ("/v1/messages", MESSAGES),
        ("/v1/messages/count_tokens", COUNT_TOKENS),
        ("/v1/rerank", RERANK),
        ("/rerank", RERANK),
        ("/v2/rerank", RERANK),
        ("/score", SCORE),
        ("/pooling", POOLING),
        ("/v1/classify", CLASSIFY),
        ("/v1/audio/translations", TRANSCRIPTION),
        ("/v1/audio/speech", SPEECH),
        ("/v1/images/edits", IMAGES),
        ("/tokenize", TOKENIZE),
        ("/v1/realtime", OTHER),  # a WebSocket begins with a GET
        ("/v1/models", OTHER),
        ("/v2/v1/completions", OTHER),
        ("/V1/completions", OTHER),
        ("/", OTHER),
        ("", OTHER),
    ],
)
@pytest.mark.parametrize("suffix", ["", "/", "?a=b", "/?next=/v1/embeddings"])
def test_the_path_decides_the_api(path: str, api: Api, suffix: str) -> None:
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


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "snappy"])
def test_body_in_an_encoding_that_is_not_unpacked_here_is_not_read(encoding: str) -> None:
    request = read(CHAT_BODY, content_encoding=encoding)
    assert (request.api, request.model, request.is_stream, request.prefix) == (CHAT, None, False, ())
    assert request.input_size == InputSize(text_bytes=len(CHAT_BODY))


@pytest.mark.parametrize("encoding", ["gzip", " GZIP", "x-gzip", "deflate"])
def test_packed_request_is_read_as_if_it_were_not(encoding: str) -> None:
    packed = zlib.compress(CHAT_BODY) if encoding == "deflate" else gzip.compress(CHAT_BODY)
    request = read(packed, content_encoding=encoding)
    assert request == replace(read(), body_bytes=len(packed))


@pytest.mark.parametrize(
    ("target", "model"),
    [
        ("/v1/realtime?model=m", "m"),
        ("/v1/realtime?a=b&model=org%2Fgr%C3%B6%C3%9Fe+1", "org/größe 1"),
        ("/v1/realtime/?intent=t&model=", None),
        ("/v1/realtime?xmodel=m", None),
        ("/v1/realtime?model=%ff", "\ufffd"),
        ("/v1/realtime", None),
    ],
)
def test_model_of_a_websocket_is_in_the_query(target: str, model: str | None) -> None:
    request = read(None, path=target, method="GET")
    assert (request.api, request.model, request.has_body) == (REALTIME, model, False)


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


def test_a_call_of_grpc_is_work_of_which_nothing_is_read() -> None:
    headers = {":method": "POST", ":path": "/vllm.Inference/Generate"}
    assert is_placed_by_headers(headers)
    assert not is_placed_by_headers(headers | {":path": "/v1/chat/completions"})
    named = headers | {"x-tenant": "a", "x-slo-ttft-ms": "500"}
    request = read_request(named, None, TokenRatios(), HeaderRules(tenant_header="x-tenant"))
    assert (request.tenant, request.wait_limit_s) == ("a", 0.5)
    assert (request.api, request.has_body, request.model, request.input_tokens) == (GRPC, True, None, 0)
