"""What became of a placed request: Envoy's log entry, read together with the decision that came back in it.

Whether a backend is to blame is told from Envoy's response flags and the status
(https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage): connection
failures, resets and 5xx are its failures; a 4xx is an answer; a client that leaves, or a request that Envoy
never sent, proves nothing.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from extproc.outcomes.facts import from_metadata
from extproc.outcomes.log_entry import LogEntry
from extproc.outcomes.sample import Sample
from extproc.request.api import APIS_BY_KIND, OTHER, Api

TTFT_TAG = "ttft_us"
STREAM_ERROR_KEY = "stream_error"
"""In the metadata: the code of an error that came in a stream (see envoy/stream_errors.yaml)."""
MAX_TTFT_S = 24 * 3600.0

_NOT_ROUTED_FLAGS = frozenset({"NC", "NR", "UO"})
CONNECT_FLAGS = frozenset({"UF", "UH", "URX"})
_RESET_FLAGS = frozenset({"UC", "UR", "LR", "UPE"})
_TIMEOUT_FLAGS = frozenset({"UT", "SI", "DT"})
_CLIENT_FLAGS = frozenset({"DC", "DR"})


class Failure(StrEnum):
    """Why a request did not run undisturbed on the backend that was chosen for it."""

    NOT_ROUTED = "not_routed"
    CONNECT = "connect"
    RESET = "reset"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    CLIENT_ERROR = "client_error"
    CLIENT_LEFT = "client_left"
    RETRIED = "retried"
    STREAM_ERROR = "stream_error"


_BY_FLAGS = (
    (_NOT_ROUTED_FLAGS, Failure.NOT_ROUTED),
    (CONNECT_FLAGS, Failure.CONNECT),
    (_RESET_FLAGS, Failure.RESET),
    (_TIMEOUT_FLAGS, Failure.TIMEOUT),
    (_CLIENT_FLAGS, Failure.CLIENT_LEFT),
)
_WITHOUT_TTFT = frozenset({Failure.RETRIED, Failure.STREAM_ERROR})
"""What was timed is another backend's first byte, or an error's."""
_NOBODYS_FAULT = frozenset({Failure.CLIENT_LEFT, Failure.NOT_ROUTED, Failure.RETRIED})


class Outcome(msgspec.Struct, frozen=True):
    """A finished request: its sample, and whether the backend is to blame, None where that is not known."""

    sample: Sample
    is_backend_failure: bool | None


def read_outcome(entry: LogEntry, apis: Mapping[str, Api] = APIS_BY_KIND) -> Outcome | None:
    """Return None for an exchange that no decision placed: failed open, or refused."""
    facts = from_metadata(entry.metadata)
    if facts is None:
        return None
    failure = _failure(entry)
    api = apis.get(facts.kind, OTHER)
    is_timed = facts.is_stream and api.first_byte_is_first_token and failure not in _WITHOUT_TTFT
    ttft_s = _ttft_s(entry) if is_timed else None
    sample = Sample(
        **msgspec.structs.asdict(facts),
        at_s=entry.started_at_s,
        status=entry.status,
        attempts=entry.attempts,
        failure=failure.value if failure else None,
        is_clean=failure is None and entry.status == 200 and ttft_s is not None,
        ttft_s=ttft_s,
        duration_s=entry.duration_s or 0.0,
        response_bytes=entry.response_body_bytes,
    )
    return Outcome(sample, _blame(failure))


def is_backend_failure(entry: LogEntry) -> bool | None:
    """Return whether one attempt is the backend's failure; None where it says nothing about the backend."""
    return _blame(_failure(entry))


def _failure(entry: LogEntry) -> Failure | None:
    """Return why a request did not run undisturbed; `outcomes.retry` has judged second attempts before."""
    if entry.attempts > 1:
        return Failure.RETRIED
    if entry.response_flags:
        for flags, failure in _BY_FLAGS:
            if entry.response_flags & flags:
                return failure
    if entry.status == 0:
        return Failure.CLIENT_LEFT
    stream_error = entry.metadata.get(STREAM_ERROR_KEY)
    if stream_error is not None:
        return Failure.CLIENT_ERROR if stream_error.startswith("4") else Failure.STREAM_ERROR
    if entry.status >= 500:
        return Failure.SERVER_ERROR
    return Failure.CLIENT_ERROR if entry.status >= 400 else None


def _blame(failure: Failure | None) -> bool | None:
    if failure is None or failure is Failure.CLIENT_ERROR:
        return False
    return None if failure in _NOBODYS_FAULT else True


def _ttft_s(entry: LogEntry) -> float | None:
    try:
        ttft_s = float(entry.tags.get(TTFT_TAG, "")) / 1e6
    except ValueError:
        return None
    return ttft_s if 0.0 < ttft_s <= MAX_TTFT_S else None
