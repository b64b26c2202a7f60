"""From messages of Envoy's access log service to neutral log entries.

An entry is made for every request, so this is on the hot path, though nobody waits for it. The wire format is
`protos/access_log.proto`.
"""

from google.protobuf.message import DecodeError

from extproc.adapters.ext_proc_wire import METADATA_NAMESPACE
from extproc.adapters.protos import access_log_pb2 as pb
from extproc.errors import ProtocolError
from extproc.outcomes.log_entry import LogEntry

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

_NO_FLAGS: frozenset[str] = frozenset()


def decode_entries(message: bytes) -> list[LogEntry]:
    """Read one `StreamAccessLogsMessage`, of any number of entries; raises ProtocolError for other bytes."""
    try:
        logs = pb.StreamAccessLogsMessage.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"access log: not a StreamAccessLogsMessage: {error}") from error
    return [_entry(entry) for entry in logs.http_logs.log_entry]


def _entry(entry: pb.HTTPAccessLogEntry) -> LogEntry:
    common, request, response = entry.common_properties, entry.request, entry.response
    start = common.start_time
    return LogEntry(
        started_at_s=start.seconds + start.nanos * 1e-9,
        duration_s=_duration_s(common),
        status=response.response_code.value,
        attempts=common.upstream_request_attempt_count or 1,
        response_flags=_flags(common.response_flags) if common.HasField("response_flags") else _NO_FLAGS,
        response_code_details=response.response_code_details,
        request_body_bytes=request.request_body_bytes,
        response_body_bytes=response.response_body_bytes,
        upstream_cluster=common.upstream_cluster,
        upstream_address=_address(common.upstream_remote_address),
        metadata=_metadata(common.metadata),
        tags=dict(common.custom_tags),
    )


def _duration_s(common: pb.AccessLogCommon) -> float | None:
    if not common.HasField("duration"):
        return None
    return common.duration.seconds + common.duration.nanos * 1e-9


def _flags(flags: pb.ResponseFlags) -> frozenset[str]:
    return frozenset(_SHORT_NAMES[field.name] for field, _ in flags.ListFields())


def _address(address: pb.Address) -> str:
    """HOST:PORT, the path of a socket, or nothing."""
    socket = address.socket_address
    return f"{socket.address}:{socket.port_value}" if socket.address else address.pipe.path


def _metadata(metadata: pb.Metadata) -> dict[str, str]:
    """The decision's metadata; a value that is no string is none of ours, and left out."""
    if METADATA_NAMESPACE not in metadata.filter_metadata:  # reading a missing key would add it
        return {}
    fields = metadata.filter_metadata[METADATA_NAMESPACE].fields
    return {name: value.string_value for name, value in fields.items() if value.HasField("string_value")}
