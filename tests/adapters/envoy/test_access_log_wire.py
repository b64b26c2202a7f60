from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from support.clean_sample import SAMPLE

from extproc.adapters.envoy.access_log_wire import _SHORT_NAMES, MAX_DURATION_S, decode_entries
from extproc.adapters.protos import access_log_pb2 as pb
from extproc.errors import ProtocolError
from extproc.outcomes.facts import FACTS_KEY, to_metadata
from extproc.outcomes.outcome import LogEntry, read_outcome, read_retry
from extproc.outcomes.retry_after import MAX_RETRY_AFTER_S


def log_message(*entries: dict[str, Any]) -> bytes:
    return ParseDict({"http_logs": {"log_entry": entries}}, pb.StreamAccessLogsMessage()).SerializeToString()


def common(**properties: Any) -> LogEntry:
    (entry,) = decode_entries(log_message({"common_properties": properties}))
    return entry


def test_entry_carries_what_envoy_measured_and_the_decision_gave() -> None:
    message = log_message(
        {
            "common_properties": {
                "start_time": "2026-01-02T03:04:05.250Z",
                "duration": "90.500s",
                "upstream_request_attempt_count": 2,
                "metadata": {
                    "filter_metadata": {
                        "extproc": {"load": 1.5, "layer": "predict", "facts": "{}", "is_stream": True},
                        "another.filter": {"facts": "7"},
                    }
                },
                "custom_tags": {"ttft_us": "1234"},
            },
            "response": {"response_code": 200, "response_body_bytes": 20},
        }
    )
    assert list(decode_entries(message)) == [
        LogEntry(
            started_at_s=1767323045.25,
            duration_s=90.5,
            status=200,
            attempts=2,
            response_flags=frozenset(),
            response_body_bytes=20,
            metadata={"facts": "{}"},
            tags={"ttft_us": "1234"},
        )
    ]


def test_absent_fields_have_their_neutral_values() -> None:
    assert list(decode_entries(log_message({}))) == [
        LogEntry(0.0, None, 0, 0, frozenset(), 0, {}, {}),
    ]


@pytest.mark.parametrize(
    ("status", "header", "retry_after_s"),
    [
        (429, "7", 7.0),
        (503, "7", 7.0),
        (200, "7", None),
        (503, "Wed, 21 Oct 2026 07:28:10 GMT", 5.0),
        (429, "Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        (429, "Wed, 21 Oct 9999 07:28:00 GMT", MAX_RETRY_AFTER_S),
        (429, "Wed, 99 Oct 2026 07:28:00 GMT", None),
        (429, "soon", None),
        (429, "-1", None),
        (429, "9" * 20, MAX_RETRY_AFTER_S),
        (429, "9" * 400, None),
        (429, "\u0667", None),
        (429, "", None),
    ],
)
def test_retry_after_is_read_where_a_server_takes_no_more(
    status: int, header: str, retry_after_s: float | None
) -> None:
    response = {"response_code": status, "response_headers": {"retry-after": header}}
    common = {"start_time": "2026-10-21T07:28:02Z", "duration": "3s"}
    (entry,) = decode_entries(log_message({"common_properties": common, "response": response}))
    assert entry.retry_after_s == retry_after_s


def test_duration_of_zero_is_not_an_absent_one() -> None:
    assert common(duration="0s").duration_s == 0.0


@pytest.mark.parametrize(
    ("field", "short_name"),
    [
        ("failed_local_healthcheck", "LH"),
        ("no_healthy_upstream", "UH"),
        ("upstream_request_timeout", "UT"),
        ("local_reset", "LR"),
        ("upstream_remote_reset", "UR"),
        ("upstream_connection_failure", "UF"),
        ("upstream_connection_termination", "UC"),
        ("upstream_overflow", "UO"),
        ("no_route_found", "NR"),
        ("upstream_retry_limit_exceeded", "URX"),
        ("downstream_connection_termination", "DC"),
        ("stream_idle_timeout", "SI"),
        ("downstream_protocol_error", "DPE"),
        ("no_cluster_found", "NC"),
    ],
)
def test_flags_have_envoys_short_names(field: str, short_name: str) -> None:
    assert common(response_flags={field: True, "overload_manager": True}).response_flags == {short_name, "OM"}


def test_every_flag_has_a_short_name_of_its_own() -> None:
    fields = pb.ResponseFlags.DESCRIPTOR.fields
    every_flag: dict[str, Any] = {field.name: {} if field.message_type else True for field in fields}
    assert len(common(response_flags=every_flag).response_flags) == len(fields)


def test_metadata_that_is_no_text_is_left_out() -> None:
    for value in (None, {"c": 1}, [1], 0, ""):
        metadata = {"extproc": {"facts": value, "comments_ms": "text"}}
        assert common(metadata={"filter_metadata": metadata}).metadata == {"comments_ms": "text"}


def test_entries_keep_their_order() -> None:
    message = log_message(*({"response": {"response_body_bytes": size}} for size in (3, 1, 2)))
    assert [entry.response_body_bytes for entry in decode_entries(message)] == [3, 1, 2]


@pytest.mark.parametrize("message", [b"", b"\x0a\x00", b"\x1a\x00"], ids=["empty", "identifier", "tcp_logs"])
def test_message_without_http_entries_holds_none(message: bytes) -> None:
    assert list(decode_entries(message)) == []


def test_truncated_message_is_refused() -> None:
    with pytest.raises(ProtocolError, match="StreamAccessLogsMessage"):
        decode_entries(log_message({"response": {"response_body_bytes": 10}})[:-1])


@given(st.binary())
def test_any_bytes_are_entries_or_a_protocol_error(message: bytes) -> None:
    try:
        entries = list(decode_entries(message))
    except ProtocolError:
        return
    assert all(entry.attempts >= 1 for entry in entries)


@pytest.mark.parametrize("seconds", [-(2**62), -1, 2**62])
def test_times_and_sizes_that_cannot_be_are_cut(seconds: int) -> None:
    entry = pb.HTTPAccessLogEntry()
    entry.common_properties.duration.seconds = entry.common_properties.start_time.seconds = seconds
    entry.response.response_body_bytes = 2**64 - 1
    message = pb.StreamAccessLogsMessage()
    message.http_logs.log_entry.append(entry)
    (read,) = decode_entries(message.SerializeToString())
    assert read.duration_s is not None
    assert 0.0 <= read.duration_s <= MAX_DURATION_S
    assert 0.0 <= read.started_at_s < 1e10
    assert read.response_body_bytes < 2**63


NUMBERS = st.sampled_from(["0", "1234567", "86400000001", "-1", "nan", "1e9", "", "x"]) | st.text(max_size=3)
FLAGS = st.sampled_from(
    [field.name for field in pb.ResponseFlags.DESCRIPTOR.fields if not field.message_type]
)
NAMES = ("facts", "response_id", "stream_error", "comments_ms", "layer", "odd")
TAGS = ("ttft_us", "decode_us", "headers_us", "retry_first", "retry_second", "odd")
STAGES = st.sampled_from(["UpstreamPoolReady", "UpstreamEnd", "DownstreamEnd", ""])
TEXTS = NUMBERS | st.just(to_metadata(SAMPLE)[FACTS_KEY]) | st.just("resp_0123456789abcdef")
VALUES = (
    TEXTS | st.none() | st.booleans() | st.floats(allow_nan=False) | st.lists(st.integers(0, 9), max_size=2)
)
SPAN = st.builds(Duration, seconds=st.integers(-(2**62), 2**62), nanos=st.integers(-(2**31), 2**31 - 1))


@st.composite
def log_entries(draw: st.DrawFn) -> pb.HTTPAccessLogEntry:
    """Any entry: fields that are read and others, absent or with values that cannot be."""
    common = pb.AccessLogCommon(upstream_request_attempt_count=draw(st.integers(0, 3)))
    if draw(st.booleans()):
        common.duration.CopyFrom(draw(SPAN))
    span = draw(SPAN)
    common.start_time.seconds, common.start_time.nanos = span.seconds, span.nanos
    for flag in draw(st.lists(FLAGS, max_size=2)):
        setattr(common.response_flags, flag, draw(st.booleans()))
    for namespace in draw(st.lists(st.sampled_from(["extproc", "other"]), max_size=2)):
        values = draw(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
        common.metadata.filter_metadata[namespace].update(values)
    common.custom_tags.update(draw(st.dictionaries(st.sampled_from(TAGS), NUMBERS, max_size=4)))
    if draw(st.booleans()):
        common.custom_tags["retry_stage"] = draw(STAGES)
    entry = pb.HTTPAccessLogEntry(common_properties=common)
    status = draw(st.none() | st.sampled_from([200, 404, 429, 503]) | st.integers(0, 2**32 - 1))
    if status is not None:
        entry.response.response_code.value = status
    entry.response.response_body_bytes = draw(st.integers(0, 2**64 - 1))
    if draw(st.booleans()):
        entry.response.response_headers["retry-after"] = draw(st.sampled_from(["7", "soon", ""]))
    return entry


def plainly_read(entry: pb.HTTPAccessLogEntry) -> LogEntry:
    """The definition: all of an entry, with every tag and every text of the namespace."""
    common, response = entry.common_properties, entry.response
    flags = {field.name for field, _ in common.response_flags.ListFields()}
    texts = {
        name: value.string_value
        for name, value in common.metadata.filter_metadata["extproc"].fields.items()
        if value.string_value
    }
    retry_after = response.response_headers.get("retry-after", "")
    is_overloaded = response.response_code.value in {429, 503}
    return LogEntry(
        min(max(common.start_time.seconds + common.start_time.nanos * 1e-9, 0.0), 2.0**33),
        min(max(common.duration.seconds + common.duration.nanos * 1e-9, 0.0), MAX_DURATION_S)
        if common.HasField("duration")
        else None,
        response.response_code.value,
        common.upstream_request_attempt_count or 1,
        frozenset(_SHORT_NAMES[flag] for flag in flags),
        min(response.response_body_bytes, 2**53),
        texts,
        dict(common.custom_tags),
        float(retry_after) if is_overloaded and retry_after.isdigit() else None,
    )


@given(st.lists(log_entries(), max_size=3), st.booleans())
def test_outcomes_are_those_of_the_whole_entries(
    entries: list[pb.HTTPAccessLogEntry], has_more_fields: bool
) -> None:
    """Whatever an entry has besides, and in whatever order its fields come."""
    message = pb.StreamAccessLogsMessage()
    message.http_logs.log_entry.extend(entries)
    data = message.SerializeToString()
    if has_more_fields:  # an identifier, behind the entries instead of before them
        data += b"\x0a\x06\x12\x04logs"
    for read, entry in zip(decode_entries(data), entries, strict=True):
        plain = plainly_read(entry)
        assert read_retry(read) == read_retry(plain)
        if read_retry(read) is None:
            assert read_outcome(read) == read_outcome(plain)
        assert (read.started_at_s, read.status, read.response_flags) == (
            plain.started_at_s,
            plain.status,
            plain.response_flags,
        )
