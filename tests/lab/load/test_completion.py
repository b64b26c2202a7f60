import json

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
