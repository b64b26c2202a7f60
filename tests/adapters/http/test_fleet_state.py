import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import msgspec
import pytest
from support.fleet_states import MODEL_STATUS, backend_status, fleet_state

from extproc.adapters.http.fleet_state import (
    BackendStatus,
    FleetState,
    ModelStatus,
    QueueStatus,
    fetch_state,
    is_answering,
)
from extproc.errors import StackError

FIRST_FIELDS: dict[type[msgspec.Struct], tuple[str, ...]] = {
    FleetState: ("backends", "model", "decisions", "reasons", "passed_through", "queue", "draining"),
    BackendStatus: (
        *("name", "address", "models", "own", "foreign", "load", "running", "waiting", "num_running"),
        *(
            "kv_cache_fraction",
            "scrape_age_s",
            "is_fresh",
            "zone",
            "medium_load",
            "max_active",
            "waits_above",
            "prompts_ahead_s",
        ),
        *("membership", "is_routable", "reason", "predicted_ttft_s", "expected_s", "observed_ttft_s"),
        *("running_error", "is_model_trusted"),
    ),
    ModelStatus: (
        *("version", "trained_at", "promised_error", "median_relative_error", "accepted", "refused"),
        "last_refusal",
    ),
    QueueStatus: ("waiting", "by_model", "oldest_s", "ended"),
}
"""Those of the first version, in their order: tools of others rely on them."""

QUEUE = QueueStatus(waiting=7, by_model={"m": 7}, oldest_s=1.23, ended={"let_in": 90, "timeout": 2})
STATE = fleet_state(backend_status(), backend_status(name="vllm-2"), model=MODEL_STATUS, queue=QUEUE)


@pytest.mark.parametrize("kind", FIRST_FIELDS)
def test_first_fields_stay_in_their_order(kind: type[msgspec.Struct]) -> None:
    assert [name for name in kind.__struct_fields__ if name in FIRST_FIELDS[kind]] == list(FIRST_FIELDS[kind])


@pytest.mark.parametrize("kind", FIRST_FIELDS)
def test_added_fields_have_a_default_so_that_an_older_document_can_be_read(
    kind: type[msgspec.Struct],
) -> None:
    required = {field.name for field in msgspec.structs.fields(kind) if field.required}
    assert required <= set(FIRST_FIELDS[kind])


def test_reading_gives_what_was_written() -> None:
    assert msgspec.json.decode(msgspec.json.encode(STATE), type=FleetState) == STATE


def test_unknown_fields_of_a_newer_sidecar_are_ignored() -> None:
    document: dict[str, Any] = json.loads(msgspec.json.encode(STATE))
    for part in (document, *document["backends"], document["model"], document["queue"]):
        part["added_later"] = {"a": [1, None]}
    assert msgspec.json.decode(json.dumps(document), type=FleetState) == STATE


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
            (200, b"[" * 100_000),
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


def test_no_text_of_a_state_controls_the_terminal_of_its_reader() -> None:
    name = "vllm\x1b[2J\x9b31m\u202e\x07"
    state = fleet_state(backend_status(name=name, models=[name]))
    with server({"/v1/state": (200, msgspec.json.encode(state))}) as url:
        (backend,) = fetch_state(url).backends
    assert backend.models is not None
    assert all(text.isprintable() and text.startswith("vllm") for text in (backend.name, *backend.models))
