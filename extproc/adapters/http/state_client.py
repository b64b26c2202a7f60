"""Reads a sidecar's `/v1/state` over HTTP, for the commands that show it or wait for it."""

import json
import urllib.request
from http.client import HTTPException
from typing import Any

from extproc.errors import StackError

StateDocument = dict[str, Any]

_TIMEOUT_S = 2.0
# A proxy from the environment has no business between the parts of a stack.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch_state(url: str) -> StateDocument:
    """The state of the sidecar at `url` (http://HOST:PORT); raises StackError where there is none."""
    try:
        with _opener.open(f"{url.rstrip('/')}/v1/state", timeout=_TIMEOUT_S) as response:
            document = json.load(response)
    except (OSError, HTTPException, ValueError) as error:
        raise StackError(f"no sidecar answers at {url}: {getattr(error, 'reason', error)}") from error
    if not isinstance(document, dict) or "backends" not in document:
        raise StackError(f"what answers at {url} is no sidecar of extproc")
    return document


def is_answering(url: str) -> bool:
    """Whether a GET of `url` is answered with success."""
    try:
        with _opener.open(url, timeout=_TIMEOUT_S):
            return True
    except (OSError, HTTPException):
        return False
