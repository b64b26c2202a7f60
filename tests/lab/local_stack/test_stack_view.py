import io
import json
import shlex

from rich.console import Console
from support.fleet_states import backend_status, fleet_state

from extproc.lab.local_stack.stack_view import StackPart, curl_line, stack_view, unready_backends


def test_routable_backends_that_have_answered_are_ready() -> None:
    assert (
        unready_backends(
            fleet_state(backend_status(), backend_status(models=None), backend_status(scrape_age_s=None))
        )
        is None
    )


def test_unready_backends_are_named_with_the_reason() -> None:
    joining = backend_status(name="a", address="127.0.0.1:8101", is_routable=False, reason="joining")
    silent = backend_status(name="b", address="127.0.0.1:8102", models=None, scrape_age_s=None)
    assert unready_backends(fleet_state(joining, backend_status(name="c"), silent)) == (
        "a (127.0.0.1:8101): joining; b (127.0.0.1:8102): does not answer"
    )


def test_curl_line_asks_for_a_stream_of_a_model_that_is_served() -> None:
    words = shlex.split(curl_line(8080, {"zebra", "it's"}))
    assert words[:3] == ["curl", "-iN", "http://127.0.0.1:8080/v1/chat/completions"]
    body = json.loads(words[words.index("-d") + 1])
    assert (body["model"], body["stream"]) == ("it's", True)


def test_curl_line_without_known_models_has_a_place_for_one() -> None:
    assert '"model": "MODEL"' in curl_line(8080, ())


def test_every_part_is_shown_with_its_address_and_process() -> None:
    output = io.StringIO()
    parts = [StackPart("Envoy", "http://127.0.0.1:8080", "requests", 4711), StackPart("x", "y", "z", None)]
    Console(file=output, width=80).print(stack_view(parts, "/run/dir", is_temporary=True))
    lines = [line.split() for line in output.getvalue().splitlines()]
    assert lines[1:3] == [["Envoy", "http://127.0.0.1:8080", "requests", "4711"], ["x", "y", "z"]]
    assert "/run/dir" in output.getvalue()
