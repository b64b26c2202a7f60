import json

import pytest
from support.toy_api import TOY

from extproc.lab.simulated_vllm.openai import (
    DEFAULT_OUTPUT_TOKENS,
    Refusal,
    Work,
    content_blocks,
    count_tokens,
    read_work,
)
from extproc.request.api import CHAT, COMPLETION, EMBEDDING, RESPONSES, Api


def read(api: Api, **body: object) -> Work | Refusal:
    return read_work(api, json.dumps(body).encode(), ("a", "b"), max_model_len=1000)


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ("12345678", 2),
        ("123456789", 3),
        ("äöüß", 2),
        ("", 1),
        ([], 1),
        ([1, 2, 3], 3),
        (["1234", "5678"], 2),
        ([[1, 2], [3]], 3),
        ([{"role": "user", "content": "12345678"}], 2),
        ([{"role": "user", "content": [{"type": "text", "text": "1234"}, {"type": "image_url"}]}], 1),
    ],
)
def test_a_token_is_four_bytes_of_text_or_one_id(value, tokens):
    assert count_tokens(value) == tokens


def test_prompts_that_begin_alike_have_their_first_blocks_in_common():
    first = content_blocks([{"role": "user", "content": "a" * 64}, {"role": "user", "content": "b" * 64}])
    longer = content_blocks(["a" * 64 + "b" * 64 + "c" * 100])
    other = content_blocks(["b" * 64 + "a" * 64])
    assert longer[:2] == first
    assert len(longer) == 3  # of 228 bytes; only full blocks count
    assert not set(first) & set(other)
    assert content_blocks([list(range(40))]) == content_blocks([list(range(32))])


@pytest.mark.parametrize(
    ("api", "body", "output_tokens"),
    [
        (COMPLETION, {"prompt": "x"}, 16),
        (CHAT, {"messages": []}, 64),
        (RESPONSES, {"input": "x"}, 64),
        (EMBEDDING, {"input": "x"}, 0),
        (COMPLETION, {"prompt": "x", "max_tokens": 5}, 5),
        (CHAT, {"messages": [], "max_tokens": 5, "max_completion_tokens": 6}, 6),
        (RESPONSES, {"input": "x", "max_output_tokens": 7}, 7),
        (COMPLETION, {"prompt": [1] * 990}, 10),
    ],
)
def test_output_tokens_are_what_is_asked_or_the_default_that_fits(api, body, output_tokens):
    work = read(api, **body)
    assert isinstance(work, Work)
    assert work.output_tokens == output_tokens


def test_a_row_is_enough_to_read_the_work_of_an_api():
    assert read(TOY, text="12345678", max_toys=7) == Work(TOY, "a", 2, 7, 1, False, False)
    assert read(TOY, text="12345678", max_toys=None, max_tokens=6, max_completion_tokens=5).output_tokens == 6
    assert read(TOY, text="x").output_tokens == DEFAULT_OUTPUT_TOKENS
    assert read(TOY, prompt="x").param == "text"


def test_without_a_model_the_first_one_is_used():
    work = read(COMPLETION, prompt="x")
    assert isinstance(work, Work)
    assert work.model == "a"


def test_instructions_count_as_input():
    work = read(RESPONSES, input="12345678", instructions="1234")
    assert isinstance(work, Work)
    assert work.prompt_tokens == 3


@pytest.mark.parametrize(("given", "inputs"), [("x", 1), ([1, 2], 1), (["x", "y"], 2), ([[1], [2], [3]], 3)])
def test_inputs_are_counted(given, inputs):
    work = read(EMBEDDING, input=given)
    assert isinstance(work, Work)
    assert work.inputs == inputs


@pytest.mark.parametrize(
    ("body", "status", "error_type", "param"),
    [
        ({"prompt": "x", "model": "c"}, 404, "NotFoundError", "model"),
        ({}, 400, "Bad Request", "prompt"),
        ({"prompt": "x", "max_tokens": "many"}, 400, "Bad Request", None),
        ({"prompt": "x", "max_tokens": 0}, 400, "BadRequestError", "max_tokens"),
        ({"prompt": [1] * 1000}, 400, "BadRequestError", "input_tokens"),
        ({"prompt": [1] * 990, "max_tokens": 11}, 400, "BadRequestError", "max_tokens"),
    ],
)
def test_what_vllm_refuses_is_refused(body, status, error_type, param):
    refusal = read(COMPLETION, **body)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.type, refusal.param) == (status, error_type, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"prompt": "\xff"}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(body):
    refusal = read_work(COMPLETION, body, ("a",), max_model_len=1000)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400


def test_a_deeply_nested_prompt_is_counted():
    body = b'{"prompt": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}"
    work = read_work(COMPLETION, body, ("a",), max_model_len=1000)
    assert isinstance(work, Work)
    assert work.prompt_tokens == 1


def test_an_embedding_may_fill_the_whole_context():
    assert isinstance(read(EMBEDDING, input=[1] * 1000), Work)
    assert isinstance(read(EMBEDDING, input=[1] * 1001), Refusal)


def test_a_refusal_has_vllms_form():
    refusal = Refusal(404, "NotFoundError", "The model `x` does not exist.", "model")
    assert json.loads(refusal.body()) == {
        "error": {
            "message": "The model `x` does not exist.",
            "type": "NotFoundError",
            "param": "model",
            "code": 404,
        }
    }
