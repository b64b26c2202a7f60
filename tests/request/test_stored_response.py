"""Which stored response a request is about: by its path, or by the response that it goes on from."""

import json
from typing import Any

import pytest

from extproc.request.request import Request, read_request
from extproc.request.stored_response import NO_RESPONSE, response_number
from extproc.request.token_ratio import TokenRatios

NUMBER = response_number("resp_1")


def read(method: str, path: str, body: Any = None) -> Request:
    sent = None if body is None else json.dumps(body).encode()
    return read_request({":method": method, ":path": path}, sent, TokenRatios())


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/responses/resp_1", None),
        ("GET", "/v1/responses/resp_1?stream=true&starting_after=3", None),
        ("GET", "/v1/responses/resp_1/input_items", None),
        ("DELETE", "/v1/responses/resp_1", None),
        ("POST", "/v1/responses/resp_1/cancel", None),
        ("POST", "/v1/responses/resp_1/cancel/", {}),
    ],
)
def test_a_request_about_a_stored_response_is_no_work_for_an_engine(
    method: str, path: str, body: Any
) -> None:
    request = read(method, path, body)
    assert (request.response, request.has_body, request.model) == (NUMBER, False, None)


@pytest.mark.parametrize("padding", [0, 100_000])
def test_a_request_that_goes_on_from_a_response_names_it(padding: int) -> None:
    body = {"model": "m", "input": "x" * padding, "previous_response_id": "resp_1"}
    request = read("POST", "/v1/responses", body)
    assert (request.response, request.has_body, request.model) == (NUMBER, True, "m")


@pytest.mark.parametrize("length", [257, 20_000])
@pytest.mark.parametrize("padding", [0, 100_000])
def test_an_id_of_any_length_names_a_response(length: int, padding: int) -> None:
    """Else a server would be asked for it, and its 404 be taken for one of the model."""
    body = {"model": "m", "input": "x" * padding, "previous_response_id": "resp_" + "x" * length}
    assert read("POST", "/v1/responses", body).response != NO_RESPONSE


@pytest.mark.parametrize("previous", [None, "", 1, ["resp_1"], {"id": "resp_1"}])
def test_what_is_no_id_names_no_response(previous: Any) -> None:
    body = {"model": "m", "input": "x", "previous_response_id": previous}
    assert read("POST", "/v1/responses", body).response == NO_RESPONSE
    assert read("POST", "/v1/responses", {"model": "m"}).response == NO_RESPONSE


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/v1/responses/", "/v1/chat/completions", "/v1/responses/a/b/c"]
)
def test_other_paths_name_no_response(path: str) -> None:
    assert read("GET", path).response == NO_RESPONSE


def test_other_apis_know_no_stored_responses() -> None:
    body = {"model": "m", "messages": [], "previous_response_id": "resp_1"}
    assert read("POST", "/v1/chat/completions", body).response == NO_RESPONSE
