"""The facts of a request's body that placing the request depends on."""

from typing import Annotated

import msgspec

MAX_TOKEN_LIMIT = 2**31 - 1

TokenLimit = Annotated[int, msgspec.Meta(gt=0, le=MAX_TOKEN_LIMIT)]
"""A limit of output tokens that is worth believing."""


class InputSize(msgspec.Struct, frozen=True):
    """The size of a request's input, by how it can be turned into tokens.

    `text_bytes` is UTF-8 text whose tokens have to be estimated, `exact_tokens` counts token ids that the
    client sent, `media_tokens` is a flat estimate for images and audio. Each of its `prompts` has to fit into
    a model's context.
    """

    text_bytes: int = 0
    exact_tokens: int = 0
    media_tokens: int = 0
    prompts: int = 1


class BodyFacts(msgspec.Struct, frozen=True):
    """Facts read from one body.

    Where it is not readable (neither a JSON object nor a form), `input_size` is that of a short text and the
    rest is unknown. `token_limit` is None where it is absent, not a positive integer, or above 2**31 - 1.
    `cache_salt` separates the engine's prefix cache: requests share nothing with those of another salt.
    `previous_response` is the id of the stored response that the request goes on from, empty without one.
    """

    model: str | None
    is_stream: bool
    input_size: InputSize
    token_limit: int | None
    is_readable: bool
    cache_salt: str = ""
    previous_response: str = ""
