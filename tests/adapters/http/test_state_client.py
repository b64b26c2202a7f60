import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import msgspec
import pytest
from support.fleet_states import MODEL_STATUS, backend_status, fleet_state

from extproc.adapters.http.state_client import fetch_state, is_answering
from extproc.errors import StackError

STATE = fleet_state(backend_status(), model=MODEL_STATUS)
DOCUMENT = msgspec.json.encode(STATE)


class Handler(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, bytes]]] = {}

    def do_GET(self) -> None:
        status, body = self.answers.get(self.path, (404, b""))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        pass


@contextmanager
def server(answers: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    handler = type("Answering", (Handler,), {"answers": answers})
    with HTTPServer(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_port}"
        finally:
            made.shutdown()
            thread.join()


def test_state_is_fetched_whatever_slash_the_url_ends_with() -> None:
    with server({"/v1/state": (200, DOCUMENT)}) as url:
        assert fetch_state(url) == fetch_state(f"{url}/") == STATE


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTP_PROXY"])
def test_proxy_of_the_environment_is_not_used(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(proxy, "http://127.0.0.1:1")
    with server({"/v1/state": (200, DOCUMENT)}) as url:
        assert fetch_state(url) == STATE


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *(
            (404, b""),
            (500, b"{}"),
            (200, b""),
            (200, b"<html>"),
            (200, b"[]"),
            (200, b"{}"),
            (200, b'"\xff"'),
        ),
        *((200, b'{"backends": {}}'), (200, DOCUMENT[:-1])),
    ],
)
def test_what_is_no_sidecar_is_said_to_be_none(status: int, body: bytes) -> None:
    with server({"/v1/state": (status, body)}) as url, pytest.raises(StackError, match="no sidecar"):
        fetch_state(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://", "http://127.0.0.1:x"])
def test_unreachable_url_is_a_message_with_the_url(url: str) -> None:
    with pytest.raises(StackError, match=f"no sidecar answers at {url}: "):
        fetch_state(url)


def test_only_success_is_an_answer() -> None:
    with server({"/ready": (200, b"LIVE"), "/busy": (503, b"")}) as url:
        assert is_answering(f"{url}/ready")
        assert not is_answering(f"{url}/busy")
    assert not is_answering("http://127.0.0.1:1/ready")
