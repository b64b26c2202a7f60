"""From messages of Envoy's access log service to neutral log entries.

An entry is made for every request, so this is on the hot path, though no request waits for it. The wire
format is `protos/access_log.proto`. Protobuf's parser takes a fifth of the time, the rest is what is read of
its messages: so no more than is used. (Measured: reading the bytes themselves in Python takes 1.7 times as
long as all of it.) Maps are read by their keys: `items()` and `dict()` take twice as long.
The map of tags is handed on as it is.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from extproc.adapters.envoy.ext_proc_wire import METADATA_NAMESPACE
from extproc.adapters.protos import access_log_pb2 as pb
from extproc.errors import ProtocolError
from extproc.outcomes.facts import FACTS_KEY
from extproc.outcomes.outcome import OVERLOADED, RESPONSE_KEY, STREAM_ERROR_KEY, LogEntry
from extproc.outcomes.retry_after import read_retry_after_s
from extproc.outcomes.server_times import COMMENTS_KEY

_SHORT_NAMES = {
    "failed_local_healthcheck": "LH",
    "no_healthy_upstream": "UH",
    "upstream_request_timeout": "UT",
    "local_reset": "LR",
    "upstream_remote_reset": "UR",
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_overflow": "UO",
    "no_route_found": "NR",
    "delay_injected": "DI",
    "fault_injected": "FI",
    "rate_limited": "RL",
    "unauthorized_details": "UAEX",
    "rate_limit_service_error": "RLSE",
    "downstream_connection_termination": "DC",
    "upstream_retry_limit_exceeded": "URX",
    "stream_idle_timeout": "SI",
    "invalid_envoy_request_headers": "IH",
    "downstream_protocol_error": "DPE",
    "upstream_max_stream_duration_reached": "UMSDR",
    "response_from_cache_filter": "RFCF",
    "no_filter_config_found": "NFCF",
    "duration_timeout": "DT",
    "upstream_protocol_error": "UPE",
    "no_cluster_found": "NC",
    "overload_manager": "OM",
    "dns_resolution_failure": "DF",
    "downstream_remote_reset": "DR",
}
"""Envoy's short names (https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage,
%RESPONSE_FLAGS%) by field of `ResponseFlags`."""

_METADATA = frozenset({FACTS_KEY, RESPONSE_KEY, STREAM_ERROR_KEY, COMMENTS_KEY})
"""The names that are read."""

_NO_FLAGS: frozenset[str] = frozenset()

MAX_DURATION_S = 24 * 3600.0
_MAX_AT_S = 2.0**33  # in the year 2242
_MAX_BYTES = 1 << 53
"""No exchange is longer or larger; sums of what is learned, and SQLite, take no larger numbers."""


def decode_entries(message: bytes) -> Iterator[LogEntry]:
    """Read one `StreamAccessLogsMessage`, of any number of entries; raises ProtocolError for other bytes.

    An entry is read when it is asked for.
    """
    try:
        logs = pb.StreamAccessLogsMessage.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"access log: not a StreamAccessLogsMessage: {error}") from error
    return map(_entry, logs.http_logs.log_entry)


def _entry(entry: pb.HTTPAccessLogEntry) -> LogEntry:
    common, response = entry.common_properties, entry.response
    status, body_bytes = response.response_code.value, response.response_body_bytes
    started_at_s = _bounded_s(common.start_time, _MAX_AT_S)
    duration_s = _bounded_s(common.duration, MAX_DURATION_S) if common.HasField("duration") else None
    return LogEntry(
        started_at_s,
        duration_s,
        status,
        common.upstream_request_attempt_count,
        _flags(common.response_flags) if common.HasField("response_flags") else _NO_FLAGS,
        body_bytes if body_bytes < _MAX_BYTES else _MAX_BYTES,
        _metadata(common.metadata.filter_metadata),
        common.custom_tags,
        _retry_after_s(response, started_at_s + (duration_s or 0.0)) if status in OVERLOADED else None,
    )


def _bounded_s(time: Any, longest_s: float) -> float:
    """Return the seconds of a `Timestamp` or a `Duration`, as far as they are believable."""
    seconds: float = time.seconds + time.nanos * 1e-9
    return seconds if 0.0 <= seconds <= longest_s else max(0.0, min(longest_s, seconds))


def _retry_after_s(response: pb.HTTPResponseProperties, at_s: float) -> float | None:
    return read_retry_after_s(response.response_headers.get("retry-after", ""), at_s)


def _flags(flags: pb.ResponseFlags) -> frozenset[str]:
    return frozenset(_SHORT_NAMES[field.name] for field, _ in flags.ListFields())


def _metadata(namespaces: Mapping[str, Struct]) -> dict[str, str]:
    """Return what is read of the decision's metadata; what is no text, or empty, is not ours."""
    if METADATA_NAMESPACE not in namespaces:  # reading a missing key would add it
        return {}
    fields = namespaces[METADATA_NAMESPACE].fields
    found = {}
    for name in _METADATA.intersection(fields):
        if text := fields[name].string_value:
            found[name] = text
    return found
