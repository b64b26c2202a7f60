import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.adapters.vllm.served_models import MAX_MODELS, MAX_NAME, read_models


def body(*ids: Any) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in ids]}).encode()


def test_a_model_and_its_adapters_are_read() -> None:
    assert read_models(body("llama", "sql-lora", "模型")) == frozenset({"llama", "sql-lora", "模型"})


def test_a_list_may_be_as_long_as_the_limits_allow() -> None:
    names = [f"{number:0{MAX_NAME}}" for number in range(MAX_MODELS)]
    assert read_models(body(*names)) == frozenset(names)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"no", b"[]", b"{}", b'{"data": {}}', b'{"data": null}', b'{"data": ["llama"]}', b"\xff\xfe"),
        *(b'{"data": [{"name": "llama"}]}', b'{"data": [{"id": "a"}]} x', b'{"data": [{"id": "\xff"}]}'),
        *(body(), body(5), body(None), body("llama", 5)),
        *(body("x" * (MAX_NAME + 1)), body(*map(str, range(MAX_MODELS + 1))), b"[" * 100_000),
    ],
)
def test_what_is_no_list_that_somebody_would_serve_is_not_believed(text: bytes) -> None:
    assert read_models(text) is None


@given(st.binary() | st.binary().map(lambda part: b'{"data": [{"id": "' + part + b'"}]}'))
def test_no_answer_can_raise(text: bytes) -> None:
    models = read_models(text)
    assert models is None or all(isinstance(name, str) for name in models)
