"""The body of one request for `/v1/completions`: a prompt of token ids, so that its length is exact.

The ids are random, so no prompt shares a prefix with another and no prefix cache helps, and from a range
that every vocabulary has. `ignore_eos` makes the output as long as it was asked to be.
"""

import msgspec
import numpy as np

PATH = "/v1/completions"

_FIRST_ID, _LAST_ID = 100, 999
"""Above the special tokens that vocabularies begin with, below the end of even the smallest."""
_ID_TEXTS = np.array([list(b"%d," % number) for number in range(_FIRST_ID, _LAST_ID + 1)], np.uint8)
"""All ids have three digits, so a prompt is one gather from this table of shape (900, 4)."""


def completion_body(model: str, prompt_tokens: int, output_tokens: int, rng: np.random.Generator) -> bytes:
    """A streamed completion with exactly these lengths and a usage event at its end."""
    ids = _ID_TEXTS[rng.integers(len(_ID_TEXTS), size=prompt_tokens)].tobytes()[:-1]
    return (
        b'{"model":%b,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true,'
        b'"max_tokens":%d,"prompt":[%b]}' % (msgspec.json.encode(model), output_tokens, ids)
    )
