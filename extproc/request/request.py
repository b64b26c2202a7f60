"""What the router knows of one HTTP request: the facts that placing it depends on.

A `Request` is made once, from the request's headers and body (`request.body` reads the body), and is
never changed. The names of the API paths are vLLM's OpenAI-compatible server's.
"""

from enum import StrEnum

import msgspec


class RequestKind(StrEnum):
    """Which API a request uses; OTHER is forwarded without any claim about its input."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RESPONSES = "responses"
    OTHER = "other"


class InputSize(msgspec.Struct, frozen=True):
    """The size of a request's input, by how it can be turned into tokens.

    `text_bytes` is UTF-8 text whose tokens have to be estimated, `exact_tokens` counts token ids that the
    client sent, `media_tokens` is a flat estimate for images and audio.
    """

    text_bytes: int = 0
    exact_tokens: int = 0
    media_tokens: int = 0


class Request(msgspec.Struct, frozen=True):
    """One HTTP request, as far as placing it is concerned.

    `model` is None where the body names none or could not be read; `input_tokens` is the estimate that the
    policy used and that is recorded; `token_limit` is the most output tokens the client asked for;
    `has_body` is False for a header-only request, which no engine works on; `tenant` is for whom it is, where
    that is known. `prefix` is the chain of its prompt's blocks, of the first `prompt_bytes` of the body from
    the prompt on (see `request.prefix`).
    """

    kind: RequestKind
    path: str
    model: str | None
    is_stream: bool
    input_size: InputSize
    input_tokens: int
    token_limit: int | None
    priority: int
    body_bytes: int
    has_body: bool
    tenant: str = ""
    prefix: tuple[int, ...] = ()
    prompt_bytes: int = 0
