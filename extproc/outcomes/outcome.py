"""The outcome of a placed request: Envoy's log entry, read together with the decision that came back in it.

Whether a backend is to blame follows from Envoy's response flags and the status
(https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage): connection
failures, resets and 5xx are its failures; a 4xx is an answer; a client that leaves, or a request that Envoy
never sent, proves nothing. Nor does 429, or 503 with Retry-After: the backend takes no more for a while.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec
from msgspec.structs import force_setattr

from extproc.fleet.endpoint import GRPC_SUFFIX
from extproc.outcomes.facts import Sample, sample_from
from extproc.outcomes.response_end import TokenUsage
from extproc.outcomes.server_times import ServerTimes, read_times
from extproc.request.api import APIS_BY_KIND, OTHER, Api
from extproc.request.stored_response import NO_RESPONSE, response_number


class LogEntry(msgspec.Struct, frozen=True):
    """An entry of Envoy's access log, without its wire format: one exchange, to its end, however it ended.

    Behind a gateway of another make there is no such log, and an entry is made of the exchange itself.

    `started_at_s` is a unix timestamp; `duration_s` is None if Envoy gave none; `status` is 0 if the client
    got none; `attempts` counts the backends tried. `response_flags` are Envoy's short names
    ("UF": connecting upstream failed, "DC": the client left, ...). `metadata` is what the decision attached,
    empty if extproc was not asked; `tags` are the access log's custom tags. `retry_after_s` is a header of
    responses with status 429 or 503. `usage` is the server's, where the response was seen.
    """

    started_at_s: float
    duration_s: float | None
    status: int
    attempts: int
    response_flags: frozenset[str]
    response_body_bytes: int
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
    retry_after_s: float | None = None
    usage: TokenUsage | None = None


OVERLOADED = frozenset({429, 503})
"""Statuses by which a server says that it takes no more, 503 only with Retry-After."""


_SWITCHED = 101
"""The status of a WebSocket. Its end is that of its connection: Envoy calls a close by the server a reset."""

RESPONSE_KEY = "response_id"
"""In the metadata: the id of a response that the server may have stored (see envoy.yaml)."""
STREAM_ERROR_KEY = "stream_error"
"""In the metadata: the code of an error that came in a stream (see envoy/stream_errors.yaml)."""
GRPC_STATUS_TAG = "grpc_status"
STAGE_TAG = "retry_stage"
FIRST_TAG = "retry_first"
SECOND_TAG = "retry_second"

NOT_ROUTED_FLAGS = frozenset({"NC", "NR", "UO"})
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
    OVERLOADED = "overloaded"
    CLIENT_LEFT = "client_left"
    RETRIED = "retried"
    STREAM_ERROR = "stream_error"


_BY_FLAGS = (
    (NOT_ROUTED_FLAGS, Failure.NOT_ROUTED),
    (CONNECT_FLAGS, Failure.CONNECT),
    (_RESET_FLAGS, Failure.RESET),
    (_TIMEOUT_FLAGS, Failure.TIMEOUT),
    (_CLIENT_FLAGS, Failure.CLIENT_LEFT),
)
_GRPC_OK = "0"
_BY_GRPC_STATUS = {
    "1": Failure.CLIENT_LEFT,  # CANCELLED
    "2": Failure.SERVER_ERROR,  # UNKNOWN, of which a fault of the server becomes
    "4": Failure.CLIENT_LEFT,  # DEADLINE_EXCEEDED: the client's
    "8": Failure.OVERLOADED,  # RESOURCE_EXHAUSTED
    "13": Failure.SERVER_ERROR,  # INTERNAL
    "14": Failure.SERVER_ERROR,  # UNAVAILABLE
    "15": Failure.SERVER_ERROR,  # DATA_LOSS
}
"""Statuses of gRPC that are not about the request alone (https://grpc.github.io/grpc/core/md_doc_statuscodes.html)."""
_WITHOUT_TTFT = frozenset({Failure.RETRIED, Failure.STREAM_ERROR})
"""The time is that of another backend's first byte, or of an error."""
_ANSWERED = frozenset({None, Failure.RETRIED})
"""The client got its stream to the end, if need be from another backend."""
_NOT_BLAMED = frozenset({Failure.CLIENT_LEFT, Failure.NOT_ROUTED, Failure.RETRIED, Failure.OVERLOADED})


class Outcome(msgspec.Struct, frozen=True):
    """A finished request: its sample, and whether the backend is to blame, None where that is not known.

    An overloaded backend asks for `retry_after_s`. `is_model_missing` where it does not know the model of the
    request.

    `decode_s` is the time from the first byte to the last as the server sent them, None where that is not
    known. Neither a client that is slow to send or to read is in it, nor a wait in the router's queue.
    `is_computed` says that the server has computed the prompt.
    `are_headers_early` tells of a stream whether its headers came well before its first token, None where
    that is not known. `response` is the number of the response that it made, which the server may have kept.
    `client_ttft_s` is the time to the first token as its client saw it: with the sending of the request, the
    wait in the router's queue, and a first attempt elsewhere.
    """

    sample: Sample
    is_backend_failure: bool | None
    decode_s: float | None
    is_computed: bool
    retry_after_s: float | None = None
    is_model_missing: bool = False
    are_headers_early: bool | None = None
    response: int = NO_RESPONSE
    client_ttft_s: float | None = None


def read_outcome(entry: LogEntry, apis: Mapping[str, Api] = APIS_BY_KIND) -> Outcome | None:
    """Return None for an exchange that no decision placed: failed open, or refused."""
    sample = sample_from(entry.metadata)
    if sample is None:
        return None
    api = apis.get(sample.kind, OTHER)
    failure = _failure(entry, may_switch=api.is_upgrade)
    is_stream = sample.is_stream and api.first_byte_is_first_token
    times = read_times(entry.tags, entry.metadata)
    is_timed = is_stream and failure not in _WITHOUT_TTFT
    _complete(sample, entry, failure, times, (times.first_token_s or None) if is_timed else None)
    return Outcome(
        sample,
        _blame(failure),
        times.decode_s,
        is_computed=failure is None or (entry.status == 200 and times.first_token_s is not None),
        retry_after_s=entry.retry_after_s,
        is_model_missing=entry.status == 404 and failure is Failure.CLIENT_ERROR and api.is_generation,
        are_headers_early=times.are_headers_early if sample.is_clean else None,
        response=response_number(entry.metadata.get(RESPONSE_KEY, "")) if api.previous_field else NO_RESPONSE,
        client_ttft_s=_client_ttft_s(entry, times) if is_stream and failure in _ANSWERED else None,
    )


def _complete(
    sample: Sample, entry: LogEntry, failure: Failure | None, times: ServerTimes, ttft_s: float | None
) -> None:
    """Fill in all that a sample says of the outcome."""
    is_undisturbed = failure is None and entry.status == 200 and not sample.prefiller
    force_setattr(sample, "at_s", entry.started_at_s)
    force_setattr(sample, "status", entry.status)
    force_setattr(sample, "attempts", entry.attempts or 1)
    force_setattr(sample, "failure", None if failure is None else failure.value)
    force_setattr(sample, "is_clean", is_undisturbed and ttft_s is not None)
    force_setattr(sample, "ttft_s", ttft_s)
    force_setattr(sample, "duration_s", times.whole_s or entry.duration_s or 0.0)
    force_setattr(sample, "response_bytes", entry.response_body_bytes)
    force_setattr(sample, "output_tokens", None if entry.usage is None else entry.usage.output_tokens)
    force_setattr(sample, "cached_tokens", None if entry.usage is None else entry.usage.cached_tokens)


def _client_ttft_s(entry: LogEntry, times: ServerTimes) -> float | None:
    """Return the whole exchange but for the time from the first token to the last."""
    if entry.status != 200 or entry.duration_s is None or times.decode_s is None:
        return None
    ttft_s = entry.duration_s - times.decode_s
    return ttft_s if ttft_s > 0.0 else 0.0


def is_backend_failure(entry: LogEntry) -> bool | None:
    """Return whether a single attempt is the backend's failure; None where nothing tells."""
    return _blame(_failure(entry, may_switch=True))


def _failure(entry: LogEntry, may_switch: bool) -> Failure | None:
    """Return why it failed; of a second attempt Envoy has reported before, see `Retry`."""
    if entry.attempts > 1:
        return Failure.RETRIED
    if entry.status == _SWITCHED:
        return None if may_switch else Failure.SERVER_ERROR
    if entry.response_flags:
        for flags, failure in _BY_FLAGS:
            if entry.response_flags & flags:
                return failure
    if entry.status == 0:
        return Failure.CLIENT_LEFT
    return _failed_answer(entry)


def _failed_answer(entry: LogEntry) -> Failure | None:
    """Return why an answer is none: by its status, or, where that is 200, by what came after it."""
    stream_error = entry.metadata.get(STREAM_ERROR_KEY)
    if stream_error is not None:
        return Failure.CLIENT_ERROR if stream_error.startswith("4") else Failure.STREAM_ERROR
    grpc_status = entry.tags.get(GRPC_STATUS_TAG, _GRPC_OK)
    if entry.status == 200 and grpc_status != _GRPC_OK:
        return _BY_GRPC_STATUS.get(grpc_status, Failure.CLIENT_ERROR)
    return _failed_status(entry)


def _failed_status(entry: LogEntry) -> Failure | None:
    if entry.status == 429 or (entry.status == 503 and entry.retry_after_s is not None):
        return Failure.OVERLOADED
    if entry.status >= 500:
        return Failure.SERVER_ERROR
    return Failure.CLIENT_ERROR if entry.status >= 400 else None


def _blame(failure: Failure | None) -> bool | None:
    if failure is None or failure is Failure.CLIENT_ERROR:
        return False
    return None if failure in _NOT_BLAMED else True


class RetryStage(StrEnum):
    """How far the second attempt is; the values are Envoy's types of access-log entries."""

    SENT = "UpstreamPoolReady"
    ENDED = "UpstreamEnd"


_STAGES = {stage.value: stage for stage in RetryStage}


class Retry(msgspec.Struct, frozen=True):
    """A second attempt: `first` did not answer, `second` (empty where there was none) was tried instead.

    The router's own access log has one entry when a second attempt has a connection, and one at its end;
    envoy.yaml gives both the retry tags. The entry of the whole exchange then blames no backend. `was_sent`
    is False where `second` could not be reached either; `is_failure` is about `second`, and None where
    nothing is known of it.
    """

    first: str
    second: str
    stage: RetryStage
    was_sent: bool
    is_failure: bool | None


def read_retry(entry: LogEntry) -> Retry | None:
    """Read an entry about a second attempt; None for an entry that is about a whole exchange."""
    stage = _STAGES.get(entry.tags.get(STAGE_TAG, ""))
    if stage is None:
        return None
    return Retry(
        first=entry.tags.get(FIRST_TAG, "").removesuffix(GRPC_SUFFIX),
        second=entry.tags.get(SECOND_TAG, ""),
        stage=stage,
        was_sent=not entry.response_flags & CONNECT_FLAGS,
        is_failure=is_backend_failure(entry) if stage is RetryStage.ENDED else None,
    )
