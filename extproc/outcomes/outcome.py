"""What became of a placed request: Envoy's log entry, read together with the decision that came back in it.

Whether a backend is to blame is told from Envoy's response flags and the status
(https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage): connection
failures, resets and 5xx are its failures; a 4xx is an answer; a client that leaves, or a request that Envoy
never sent, proves nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from extproc.outcomes.log_entry import LogEntry
from extproc.outcomes.sample import Sample

TTFT_TAG = "ttft_us"
MAX_TTFT_S = 24 * 3600.0

_KINDS_WITH_TTFT = frozenset({"chat", "completion"})
"""A stream of the responses API begins with an event that vLLM sends before it schedules the request."""

_NOT_ROUTED_FLAGS = frozenset({"NC", "NR", "UO"})
_CONNECT_FLAGS = frozenset({"UF", "UH", "URX"})
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


_BY_FLAGS = (
    (_NOT_ROUTED_FLAGS, Failure.NOT_ROUTED),
    (_CONNECT_FLAGS, Failure.CONNECT),
    (_RESET_FLAGS, Failure.RESET),
    (_TIMEOUT_FLAGS, Failure.TIMEOUT),
    (_CLIENT_FLAGS, Failure.CLIENT_LEFT),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished request: its sample, and what it teaches.

    `is_backend_failure` is None where it says nothing about the backend. `model_log_ttft` is what the
    model said, uncorrected, wherever it was asked.
    """

    sample: Sample
    is_backend_failure: bool | None
    model_log_ttft: float | None


def read_outcome(entry: LogEntry) -> Outcome | None:
    """None for an exchange that no decision placed: failed open, or refused."""
    metadata = entry.metadata
    backend = metadata.get("backend")
    if not isinstance(backend, str):
        return None
    failure = _failure(entry)
    is_stream = bool(metadata.get("is_stream", False))
    kind = _text(metadata, "kind")
    ttft_s = _ttft_s(entry) if is_stream and kind in _KINDS_WITH_TTFT else None
    sample = Sample(
        at_s=entry.started_at_s,
        backend=backend,
        model=_text(metadata, "model"),
        kind=kind,
        is_stream=is_stream,
        layer=_text(metadata, "layer"),
        reason=_text(metadata, "reason"),
        model_version=_text(metadata, "model_version") or None,
        predicted_ttft_s=_optional(metadata, "predicted_ttft_s"),
        zone=_text(metadata, "zone"),
        num_running=_number(metadata, "num_running"),
        load=_number(metadata, "load"),
        num_waiting=_number(metadata, "num_waiting"),
        kv_cache_fraction=_number(metadata, "kv_cache_fraction"),
        input_tokens=_number(metadata, "input_tokens"),
        own=_number(metadata, "own"),
        foreign=_number(metadata, "foreign"),
        scrape_age_s=_optional(metadata, "scrape_age_s"),
        text_bytes=int(_number(metadata, "text_bytes")),
        body_bytes=int(_number(metadata, "body_bytes")),
        token_limit=_limit(metadata),
        priority=int(_number(metadata, "priority")),
        status=entry.status,
        attempts=entry.attempts,
        failure=failure.value if failure else None,
        is_clean=failure is None and entry.status == 200 and ttft_s is not None,
        ttft_s=ttft_s,
        duration_s=entry.duration_s or 0.0,
        response_bytes=entry.response_body_bytes,
    )
    return Outcome(sample, _blame(failure), _optional(metadata, "model_log_ttft"))


def _failure(entry: LogEntry) -> Failure | None:
    """The first attempt counts: where Envoy had to try another backend, the chosen one refused."""
    if entry.attempts > 1:
        return Failure.CONNECT
    for flags, failure in _BY_FLAGS:
        if entry.response_flags & flags:
            return failure
    if entry.status == 0:
        return Failure.CLIENT_LEFT
    if entry.status >= 500:
        return Failure.SERVER_ERROR
    return Failure.CLIENT_ERROR if entry.status >= 400 else None


def _blame(failure: Failure | None) -> bool | None:
    if failure is None or failure is Failure.CLIENT_ERROR:
        return False
    return None if failure in {Failure.CLIENT_LEFT, Failure.NOT_ROUTED} else True


def _ttft_s(entry: LogEntry) -> float | None:
    try:
        ttft_s = float(entry.tags.get(TTFT_TAG, "")) / 1e6
    except ValueError:
        return None
    return ttft_s if 0.0 < ttft_s <= MAX_TTFT_S else None


def _text(metadata: Mapping[str, object], name: str) -> str:
    value = metadata.get(name)
    return value if isinstance(value, str) else ""


def _optional(metadata: Mapping[str, object], name: str) -> float | None:
    value = metadata.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _number(metadata: Mapping[str, object], name: str) -> float:
    value = _optional(metadata, name)
    return 0.0 if value is None else value


def _limit(metadata: Mapping[str, object]) -> int | None:
    value = _optional(metadata, "token_limit")
    return None if value is None else int(value)
