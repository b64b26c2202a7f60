"""Reads a sidecar's `/v1/state` over HTTP, for the commands that show it or wait for it."""

import urllib.request
from http.client import HTTPException

import msgspec

from extproc.adapters.http.fleet_state import FleetState
from extproc.errors import StackError

_TIMEOUT_S = 2.0
# A proxy from the environment has no business between the parts of a stack.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch_state(url: str) -> FleetState:
    """Return the state of the sidecar at `url` (http://HOST:PORT); raises StackError where there is none."""
    try:
        with _opener.open(f"{url.rstrip('/')}/v1/state", timeout=_TIMEOUT_S) as response:
            document = response.read()
    except (OSError, HTTPException, ValueError) as error:
        raise StackError(f"no sidecar answers at {url}: {getattr(error, 'reason', error)}") from error
    try:
        return msgspec.json.decode(document, type=FleetState)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StackError(f"what answers at {url} is no sidecar of extproc: {error}") from error


def is_answering(url: str) -> bool:
    """Return whether a GET of `url` is answered with success."""
    try:
        with _opener.open(url, timeout=_TIMEOUT_S):
            return True
    except (OSError, HTTPException):
        return False
