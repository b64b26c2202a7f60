"""The stored response that a request is about: one that goes on from it, asks for it, or cancels it.

A server keeps its responses in its own memory (OpenAI's Responses API, `store`). No other server knows them.
An id is kept as a number alone, which no client can predict (`request.prefix` says of which hash).
"""

import re
from typing import Final

NO_RESPONSE: Final = 0

_IN_PATH: Final = re.compile(r"/v1/responses/([^/]+)(?:/[a-z_]+)?")


def response_number(response_id: str) -> int:
    """Return the number of a stored response, NO_RESPONSE without an id.

    However odd an id is, a server answers that it has no such response: that is no failure of its.
    """
    return hash(("response", response_id)) or 1 if response_id else NO_RESPONSE


def response_in_path(path: str) -> int:
    """Return the number of the response that a path names, NO_RESPONSE where it names none."""
    found = _IN_PATH.fullmatch(path) if path.startswith("/v1/responses/") else None
    return NO_RESPONSE if found is None else response_number(found[1])
