import json
from collections.abc import Sequence

import numpy as np
import pytest

from extproc.lab.load.completion import completion_body


@pytest.mark.parametrize("prompt_tokens", [1, 2, 3000])
def test_the_body_asks_for_exactly_these_lengths(prompt_tokens: int) -> None:
    body = json.loads(completion_body('a "model"', prompt_tokens, 64, np.random.default_rng(0)))
    prompt = body.pop("prompt")
    assert len(prompt) == prompt_tokens
    assert all(100 <= token <= 999 for token in prompt)
    assert body == {
        "model": 'a "model"',
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "max_tokens": 64,
    }


def test_no_two_prompts_begin_alike() -> None:
    rng = np.random.default_rng(0)
    bodies = {completion_body("m", 16, 1, rng) for _ in range(1000)}
    assert len(bodies) == 1000


def prompt_of(prompt_tokens: int, content: Sequence[int], seed: int = 0) -> list[int]:
    body = json.loads(completion_body("m", prompt_tokens, 1, np.random.default_rng(seed), content))
    prompt: list[int] = body["prompt"]
    assert len(prompt) == prompt_tokens
    assert all(100 <= token <= 999 for token in prompt)
    return prompt


def test_equal_contents_begin_alike_and_the_rest_is_random() -> None:
    one, other = (prompt_of(100, content, seed) for seed, content in enumerate([(7, 9, 1 << 62), (7, 9, 5)]))
    assert one[:32] == other[:32]
    assert one[32:48] != other[32:48]
    assert one[48:] != other[48:]
    assert prompt_of(100, (7, 9, 5), seed=1) == other


def test_a_content_beyond_the_prompt_is_left_away() -> None:
    assert prompt_of(20, (7, 9, 11)) == prompt_of(48, (7, 9, 11))[:20]


def test_no_two_blocks_are_alike() -> None:
    prompt = prompt_of(16 * 5000, range(5000))
    assert len({tuple(prompt[begin : begin + 16]) for begin in range(0, len(prompt), 16)}) == 5000
