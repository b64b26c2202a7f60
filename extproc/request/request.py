"""The facts of one HTTP request that placing it depends on, read before any decision.

A `Request` is made once, from the request's headers and body (`request.body` reads the body), and is
never changed. Path and method tell which API it uses; `api` has the table.
"""

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final
from urllib.parse import unquote_plus

import msgspec

from extproc.request.api import APIS_BY_PATH, OTHER, Api, api_at
from extproc.request.body import read_body, unreadable
from extproc.request.body_facts import InputSize
from extproc.request.content import is_cut_off, readable_content
from extproc.request.header_rules import PRIORITY_HEADER, USUAL, HeaderRules
from extproc.request.prefix import read_prefix
from extproc.request.session import NO_SESSION, read_session
from extproc.request.stored_response import NO_RESPONSE, response_in_path, response_number
from extproc.request.token_ratio import TokenRatios


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request, as far as placing it is concerned.

    `model` is None where the body names none or could not be read; `input_tokens` is the estimate that the
    policy used and that is recorded; `token_limit` is the most output tokens the client asked for;
    `has_body` is False for a header-only request, which no engine works on unless it is an upgrade, and True
    for a call of gRPC, though its messages are not read; `tenant`
    is for whom it is, where that is known; `wait_limit_s` is the client's own limit of the wait (see
    `request.slo`), None without one. `prefix` is the chain of its prompt's blocks, of the first
    `prompt_bytes` of the body from the prompt on (see `request.prefix`). `session` is the number of its
    session, if it has one, and `response` that of the stored response that it is about. `traceparent` is the
    client's, where requests are traced. `endpoints` are the addresses, IP:PORT or IP for all ports of it,
    that a gateway allows; None where it leaves the choice open. A body that `is_cut_off` was packed, and only
    its beginning could be unpacked.
    """

    api: Api
    path: str
    model: str | None = None
    is_stream: bool = False
    input_size: InputSize = InputSize()
    input_tokens: int = 0
    token_limit: int | None = None
    priority: int = 0
    body_bytes: int = 0
    has_body: bool
    tenant: str = ""
    wait_limit_s: float | None = None
    session: int = NO_SESSION
    response: int = NO_RESPONSE
    prefix: tuple[int, ...] = ()
    prompt_bytes: int = 0
    traceparent: str = ""
    endpoints: frozenset[str] | None = None
    is_cut_off: bool = False


_MODEL_IN_QUERY: Final = re.compile(r"[?&]model=([^&#]+)")

MAX_PRIORITY: Final = 100
FORWARDED_FOR: Final = "x-forwarded-for"
"""Envoy adds the address that it is called from; what stands before, the client may have made up."""
MAX_TENANT: Final = 64
"""A longer name, which may be a token, is known by its digest."""


def read_request(
    headers: Mapping[str, str],
    body: bytes | None,
    ratios: TokenRatios,
    rules: HeaderRules = USUAL,
    apis: Mapping[str, Api] = APIS_BY_PATH,
    endpoints: frozenset[str] | None = None,
) -> Request:
    """Read a request; never raises, whatever the client sent.

    Header names are in lower case. `body` is None where Envoy announced that none follows, or none is waited
    for.
    """
    path = _path(headers)
    api = api_at(path, apis)
    if headers.get(":method") != api.method:
        api = OTHER
    response = response_in_path(path) if api is OTHER else NO_RESPONSE
    if body is None or response:
        return _without_body(api, path, headers, rules, response, endpoints)
    content = readable_content(body, headers.get("content-encoding", ""))
    facts = unreadable(body) if content is None else read_body(api, content)
    prefix, prompt_bytes = read_prefix(api, content or b"", facts.model, facts.cache_salt)
    tenant = "" if rules.tenant_header is None else _tenant(rules, headers)
    is_plain = rules.are_plain(headers)  # as most are: none of their headers changes what follows
    return Request(
        api=api,
        path=path,
        model=facts.model,
        is_stream=facts.is_stream,
        input_size=facts.input_size,
        input_tokens=ratios.estimate(facts.model, facts.input_size),
        token_limit=facts.token_limit,
        priority=0 if is_plain else _priority(headers, rules),
        body_bytes=len(body),
        has_body=True,
        tenant=tenant,
        wait_limit_s=None if is_plain else rules.slo.limit_s(headers),
        session=NO_SESSION
        if is_plain
        else read_session(headers, rules.session_headers, facts.model, facts.cache_salt, tenant),
        response=response_number(facts.previous_response) if facts.previous_response else NO_RESPONSE,
        prefix=prefix,
        prompt_bytes=prompt_bytes,
        traceparent=headers.get("traceparent", "") if rules.is_traced else "",
        endpoints=endpoints,
        is_cut_off=not is_plain and is_cut_off(headers, body),
    )


def api_of(headers: Mapping[str, str], apis: Mapping[str, Api] = APIS_BY_PATH) -> Api:
    """Return the API that a request's path is of."""
    return api_at(_path(headers), apis)


def is_upgrade(headers: Mapping[str, str], apis: Mapping[str, Api] = APIS_BY_PATH) -> bool:
    """Return whether a request becomes a WebSocket: no body is waited for."""
    return headers.get(":method") == "GET" and api_of(headers, apis).is_upgrade


def is_placed_by_headers(headers: Mapping[str, str]) -> bool:
    """Return whether a request is a stream both ways, a WebSocket or gRPC: no body is waited for."""
    if headers.get(":method") != "POST":
        return is_upgrade(headers)
    is_maybe_grpc = "." in headers.get(":path", "")  # asked of every request; few other paths have a dot
    return is_maybe_grpc and api_of(headers).is_grpc


def _path(headers: Mapping[str, str]) -> str:
    target = headers.get(":path", "")
    return target if target in APIS_BY_PATH else target.partition("?")[0].rstrip("/") or "/"


def _without_body(
    api: Api,
    path: str,
    headers: Mapping[str, str],
    rules: HeaderRules,
    response: int,
    endpoints: frozenset[str] | None,
) -> Request:
    """Read a request that is no work, as one about a stored response, or a call that stays unread."""
    return Request(
        api=api if api.method == "GET" or api.is_grpc else OTHER,
        path=path,
        model=_model_in_query(headers[":path"]) if api.is_upgrade else None,
        priority=_priority(headers, rules),
        has_body=api.is_grpc,
        tenant=_tenant(rules, headers) if api.is_grpc else "",
        wait_limit_s=rules.slo.limit_s(headers) if api.is_grpc else None,
        response=response,
        endpoints=endpoints,
    )


def _model_in_query(target: str) -> str | None:
    found = _MODEL_IN_QUERY.search(target)
    return unquote_plus(found[1], errors="replace") if found else None


def _priority(headers: Mapping[str, str], rules: HeaderRules) -> int:
    """Return the priority of the request's objective, or else the client's own, within +-MAX_PRIORITY.

    It is 0 where there is neither, or the client's is no integer.
    """
    priority = rules.objectives.rank(headers)
    if priority is None:
        text = headers.get(PRIORITY_HEADER)
        if text is None:
            return 0
        try:
            priority = int(text)
        except ValueError:
            return 0
    return max(-MAX_PRIORITY, min(MAX_PRIORITY, priority))


def _tenant(rules: HeaderRules, headers: Mapping[str, str]) -> str:
    header = rules.tenant_header or ""
    name = headers.get(header, "")
    if header == FORWARDED_FOR:
        name = name.rpartition(",")[2].strip()
    if len(name) <= MAX_TENANT:
        return name
    return blake2b(name.encode(errors="replace"), digest_size=16).hexdigest()
