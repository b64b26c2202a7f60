"""The session of a request: which headers tell it, and what it is kept apart by."""

import json
from typing import Any

import pytest
from support.build import MODEL

from extproc.config.stages import SessionsConfig
from extproc.request.header_rules import HeaderRules
from extproc.request.request import read_request
from extproc.request.session import MAX_SESSION_ID, NO_SESSION, SESSION_HEADERS
from extproc.request.token_ratio import TokenRatios

OWN = SessionsConfig(header="x-thread").headers


def session(
    headers: dict[str, str],
    *,
    names: tuple[str, ...] = SESSION_HEADERS,
    path: str = "/v1/chat/completions",
    body: bytes | None = None,
    **fields: Any,
) -> int:
    sent = json.dumps({"model": MODEL, "messages": [], **fields}).encode() if body is None else body
    rules = HeaderRules("x-tenant", session_headers=names)
    return read_request({":method": "POST", ":path": path, **headers}, sent, TokenRatios(), rules).session


@pytest.mark.parametrize("name", SESSION_HEADERS)
def test_each_of_the_headers_tells_the_same_session(name: str) -> None:
    assert session({name: "anna"}) == session({SESSION_HEADERS[0]: "anna"}) != NO_SESSION
    assert session({name: "ben"}) != session({name: "anna"})


def test_a_request_without_an_id_has_no_session() -> None:
    assert session({}) == session({SESSION_HEADERS[0]: ""}) == NO_SESSION
    assert session({SESSION_HEADERS[0]: "x" * (MAX_SESSION_ID + 1)}) == NO_SESSION
    assert session({SESSION_HEADERS[0]: "x" * (MAX_SESSION_ID + 1), "session-id": "anna"}) != NO_SESSION


def test_a_configured_header_counts_first() -> None:
    assert session({"x-thread": "anna"}) == NO_SESSION
    both = {"x-thread": "anna", "session-id": "ben"}
    assert session(both, names=OWN) == session({"x-thread": "anna"}, names=OWN)
    assert session({"session-id": "ben"}, names=OWN) == session({"session-id": "ben"})


def test_sessions_can_be_switched_off() -> None:
    names = SessionsConfig(is_enabled=False, header="x-thread").headers
    assert session({"x-thread": "anna", "session-id": "ben"}, names=names) == NO_SESSION


def test_sessions_of_other_models_salts_and_tenants_are_others() -> None:
    headers = {"session-id": "anna"}
    different = {
        session(headers),
        session(headers, model="other"),
        session(headers, cache_salt="salt"),
        session({**headers, "x-tenant": "gateway's"}),
    }
    assert len(different) == 4


def test_a_body_that_cannot_be_read_and_an_unknown_api_have_sessions_too() -> None:
    headers = {"session-id": "anna"}
    assert session({**headers, "content-encoding": "gzip"}, body=b"\x1f\x8b") != NO_SESSION
    assert session(headers, path="/v1/audio/transcriptions") != NO_SESSION
