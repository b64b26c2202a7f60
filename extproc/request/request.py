"""The facts of one HTTP request that placing it depends on.

A `Request` is made once, from the request's headers and body (`request.body` reads the body), and is
never changed.
"""

import msgspec

from extproc.request.api import Api
from extproc.request.body_facts import InputSize


class Request(msgspec.Struct, frozen=True):
    """One HTTP request, as far as placing it is concerned.

    `model` is None where the body names none or could not be read; `input_tokens` is the estimate that the
    policy used and that is recorded; `token_limit` is the most output tokens the client asked for;
    `has_body` is False for a header-only request, which no engine works on; `tenant` is for whom it is, where
    that is known. `prefix` is the chain of its prompt's blocks, of the first `prompt_bytes` of the body from
    the prompt on (see `request.prefix`).
    """

    api: Api
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
