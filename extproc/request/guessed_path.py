"""The API of a request whose path is not known: some gateways send headers without it, and the body.

NGINX Gateway Fabric is one. The field that holds the prompt shows which API it is.
"""

import re
from collections.abc import Mapping
from typing import Final

from extproc.request.api import CHAT, COMPLETION, EMBEDDING, Api

_FIELDS: Final = re.compile(rb'"(messages|prompt|input)"\s*:')
_BY_FIELD: Final[Mapping[bytes, Api]] = {b"messages": CHAT, b"prompt": COMPLETION, b"input": EMBEDDING}


def with_path(headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
    """Return the headers, with method and path if they have none and the body says which."""
    if ":path" in headers:
        return headers
    found = _FIELDS.search(body)
    if found is None:
        return headers
    api = _BY_FIELD[found[1]]
    return {**headers, ":method": api.method, ":path": api.path}
