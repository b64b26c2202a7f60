from dataclasses import replace as row_with
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace
from support.toy_api import TOY

from extproc.fleet.wait_terms import ExpectedWait
from extproc.outcomes.facts import FACTS_KEY, PlacedFacts, Sample, from_metadata, to_metadata
from extproc.outcomes.outcome import Failure, LogEntry, Retry, RetryStage, read_outcome, read_retry
from extproc.outcomes.server_times import COMMENTS_KEY

FACTS = PlacedFacts(
    booking=7,
    backend="vllm-1",
    layer="predict",
    reason="lowest_prediction",
    zone="medium",
    kind="chat",
    is_stream=True,
    num_running=7.0,
    load=9.0,
    num_waiting=2.0,
    kv_cache_fraction=0.5,
    own=8.0,
    foreign=1.0,
    input_tokens=120.0,
    text_bytes=480,
    body_bytes=600,
    model="m",
    model_version="v1",
    predicted_ttft_s=1.3,
    expected_cached_tokens=80.0,
)
ENTRY = LogEntry(
    started_at_s=1_795_000_000.0,
    duration_s=2.5,
    status=200,
    attempts=1,
    response_flags=frozenset(),
    response_body_bytes=4000,
    metadata=to_metadata(FACTS),
    tags={"ttft_us": "1250000", "decode_us": "1250000"},
)


def test_a_clean_stream_becomes_a_complete_sample() -> None:
    outcome = read_outcome(ENTRY)
    assert outcome is not None
    sample = outcome.sample
    assert (sample.backend, sample.layer, sample.ttft_s, sample.duration_s) == (
        "vllm-1",
        "predict",
        1.25,
        2.5,
    )
    assert (sample.num_running, sample.load, sample.input_tokens) == (7.0, 9.0, 120.0)
    assert (sample.model_version, sample.predicted_ttft_s) == ("v1", 1.3)
    assert (sample.expected_cached_tokens, sample.new_tokens) == (80.0, 40.0)
    assert sample.is_clean
    assert outcome.is_backend_failure is False


def test_all_facts_of_the_decision_are_part_of_the_sample() -> None:
    outcome = read_outcome(ENTRY)
    assert outcome is not None
    assert asdict(FACTS).items() <= asdict(outcome.sample).items()


def test_what_metadata_says_of_the_outcome_is_no_outcome() -> None:
    outcome = read_outcome(ENTRY)
    lies = {"at_s": 1e300, "status": 7, "attempts": 9, "failure": "x", "is_clean": True, "ttft_s": 1e300}
    lies |= {"duration_s": 1e300, "response_bytes": 7, "output_tokens": 7, "cached_tokens": 7}
    facts = msgspec.json.decode(ENTRY.metadata[FACTS_KEY])
    assert lies.keys() == set(Sample.__struct_fields__) - set(PlacedFacts.__struct_fields__)
    assert (
        read_outcome(replace(ENTRY, metadata={FACTS_KEY: msgspec.json.encode(facts | lies).decode()}))
        == outcome
    )


def test_a_stream_whose_prompt_another_server_has_computed_is_no_clean_sample() -> None:
    outcome = read_outcome(replace(ENTRY, metadata=to_metadata(replace(FACTS, prefiller="vllm-2"))))
    assert outcome is not None
    assert (outcome.sample.is_clean, outcome.sample.ttft_s, outcome.sample.failure) == (False, 1.25, None)


def commented(comments_ms: str, **change: object) -> LogEntry:
    return replace(ENTRY, metadata={**to_metadata(FACTS), COMMENTS_KEY: comments_ms}, **change)


def test_comments_before_the_first_token_are_not_taken_for_it() -> None:
    outcome = read_outcome(commented("1000"))
    assert outcome is not None
    assert (outcome.sample.ttft_s, outcome.decode_s, outcome.sample.duration_s) == (2.25, 0.25, 2.5)
    assert outcome.sample.is_clean


@pytest.mark.parametrize("comments_ms", ["endless", "nan", "-1", "1e30", "-"])
def test_a_stream_of_nothing_but_comments_has_no_first_token(comments_ms: str) -> None:
    outcome = read_outcome(commented(comments_ms, response_flags=frozenset({"DC"})))
    assert outcome is not None
    assert (outcome.sample.ttft_s, outcome.decode_s, outcome.is_computed) == (None, None, False)
    assert not outcome.sample.is_clean


@pytest.mark.parametrize(
    ("headers_us", "are_early"),
    [("2000", True), ("600000", True), ("700000", False), ("1249000", False), ("-", None), ("", None)],
)
def test_headers_that_come_with_the_first_token_differ_from_early_ones(
    headers_us: str, are_early: bool | None
) -> None:
    outcome = read_outcome(replace(ENTRY, tags={**ENTRY.tags, "headers_us": headers_us}))
    assert outcome is not None
    assert outcome.are_headers_early is are_early


def test_two_times_that_are_close_tell_nothing_of_the_headers() -> None:
    tags = {**ENTRY.tags, "ttft_us": "9000", "headers_us": "1000"}
    outcome = read_outcome(replace(ENTRY, tags=tags))
    assert outcome is not None
    assert outcome.are_headers_early is False


def test_neither_a_slow_upload_nor_a_wait_in_our_queue_is_part_of_what_the_server_took() -> None:
    outcome = read_outcome(replace(ENTRY, duration_s=17.5))
    assert outcome is not None
    assert (outcome.sample.duration_s, outcome.decode_s) == (2.5, 1.25)


@pytest.mark.parametrize(
    ("change", "client_ttft_s"),
    [
        ({}, 16.25),
        ({"attempts": 2}, 16.25),
        ({"duration_s": 1.0}, 0.0),
        ({"duration_s": None}, None),
        ({"status": 503}, None),
        ({"response_flags": frozenset({"DC"})}, None),
        ({"tags": {}}, None),
    ],
)
def test_a_client_waits_for_upload_queue_and_retry_too(
    change: dict[str, Any], client_ttft_s: float | None
) -> None:
    outcome = read_outcome(replace(ENTRY, **{"duration_s": 17.5, **change}))
    assert outcome is not None
    assert outcome.client_ttft_s == client_ttft_s


@pytest.mark.parametrize("tag", ["-", "", "nan", "-1", "1e30"])
def test_without_the_time_of_the_last_byte_nothing_is_known_of_decoding(tag: str) -> None:
    outcome = read_outcome(replace(ENTRY, tags={**ENTRY.tags, "decode_us": tag}))
    assert outcome is not None
    assert (outcome.sample.duration_s, outcome.decode_s, outcome.sample.ttft_s) == (2.5, None, 1.25)


@pytest.mark.parametrize(
    ("change", "is_computed"),
    [
        ({}, True),
        ({"response_flags": frozenset({"DC"})}, True),
        ({"response_flags": frozenset({"DC"}), "tags": {}}, False),
        ({"status": 400}, False),
        ({"status": 500}, False),
        ({"status": 0, "tags": {}}, False),
        ({"attempts": 2}, True),
    ],
)
def test_a_prompt_is_computed_once_its_answer_has_begun(change: dict[str, object], is_computed: bool) -> None:
    outcome = read_outcome(replace(ENTRY, **change))
    assert outcome is not None
    assert outcome.is_computed is is_computed


def test_more_cached_than_sent_leaves_no_new_tokens() -> None:
    assert replace(FACTS, expected_cached_tokens=500.0).new_tokens == 0.0


def test_an_exchange_that_no_decision_placed_is_no_outcome() -> None:
    assert read_outcome(replace(ENTRY, metadata={})) is None


@pytest.mark.parametrize(
    ("change", "failure", "is_backend_failure"),
    [
        ({"attempts": 2}, Failure.RETRIED, None),
        ({"metadata": {**to_metadata(FACTS), "stream_error": "503"}}, Failure.STREAM_ERROR, True),
        ({"metadata": {**to_metadata(FACTS), "stream_error": "400"}}, Failure.CLIENT_ERROR, False),
        ({"response_flags": frozenset({"UF", "URX"}), "status": 503}, Failure.CONNECT, True),
        ({"response_flags": frozenset({"UC"})}, Failure.RESET, True),
        ({"response_flags": frozenset({"UT"}), "status": 504}, Failure.TIMEOUT, True),
        ({"status": 500}, Failure.SERVER_ERROR, True),
        ({"status": 503}, Failure.SERVER_ERROR, True),
        ({"status": 400}, Failure.CLIENT_ERROR, False),
        ({"status": 429}, Failure.OVERLOADED, None),
        ({"status": 503, "retry_after_s": 7.0}, Failure.OVERLOADED, None),
        ({"response_flags": frozenset({"DC"})}, Failure.CLIENT_LEFT, None),
        ({"status": 0}, Failure.CLIENT_LEFT, None),
        ({"response_flags": frozenset({"NC"}), "status": 503}, Failure.NOT_ROUTED, None),
    ],
)
def test_blame_follows_flags_and_status(
    change: dict[str, object], failure: Failure, is_backend_failure: bool | None
) -> None:
    outcome = read_outcome(replace(ENTRY, **change))
    assert outcome is not None
    assert outcome.sample.failure == failure
    assert outcome.is_backend_failure is is_backend_failure
    assert not outcome.sample.is_clean


@pytest.mark.parametrize("flag", ["UC", "DC", "SI"])
def test_a_websocket_fails_by_no_way_in_which_its_connection_ends(flag: str) -> None:
    metadata = to_metadata(replace(FACTS, kind="realtime"))
    outcome = read_outcome(replace(ENTRY, status=101, response_flags=frozenset({flag}), metadata=metadata))
    assert outcome is not None
    assert (outcome.sample.failure, outcome.is_backend_failure, outcome.sample.is_clean) == (
        None,
        False,
        False,
    )


def test_a_server_that_makes_a_websocket_of_another_request_has_failed() -> None:
    outcome = read_outcome(replace(ENTRY, status=101))
    assert outcome is not None
    assert (outcome.sample.failure, outcome.is_backend_failure) == (Failure.SERVER_ERROR, True)


def test_a_response_that_is_no_stream_has_no_ttft() -> None:
    outcome = read_outcome(replace(ENTRY, metadata=to_metadata(replace(FACTS, is_stream=False))))
    assert outcome is not None
    assert outcome.sample.ttft_s is None
    assert not outcome.sample.is_clean


def test_a_stream_that_begins_before_its_first_token_has_no_ttft() -> None:
    outcome = read_outcome(replace(ENTRY, metadata=to_metadata(replace(FACTS, kind="responses"))))
    assert outcome is not None
    assert outcome.sample.ttft_s is None


@pytest.mark.parametrize(("is_timed", "ttft_s"), [(True, 1.25), (False, None)])
def test_the_row_of_an_api_says_whether_its_first_byte_is_its_first_token(
    is_timed: bool, ttft_s: float | None
) -> None:
    apis = {TOY.kind: row_with(TOY, first_byte_is_first_token=is_timed)}
    outcome = read_outcome(replace(ENTRY, metadata=to_metadata(replace(FACTS, kind=TOY.kind))), apis)
    assert outcome is not None
    assert (outcome.sample.kind, outcome.sample.ttft_s) == ("toy", ttft_s)


def test_a_kind_without_a_row_has_no_ttft() -> None:
    outcome = read_outcome(replace(ENTRY, metadata=to_metadata(replace(FACTS, kind="unheard of"))))
    assert outcome is not None
    assert outcome.sample.ttft_s is None


@pytest.mark.parametrize("tag", ["-", "", "abc", "-5", "0", "nan", "inf", "1e30"])
def test_a_ttft_that_cannot_be_is_none(tag: str) -> None:
    outcome = read_outcome(replace(ENTRY, tags={"ttft_us": tag}))
    assert outcome is not None
    assert outcome.sample.ttft_s is None


@pytest.mark.parametrize(
    "facts", ["", "{}", "[]", "null", '{"backend": 5}', "[" * 100_000, "\x00", '{"load": NaN}']
)
def test_metadata_that_is_not_ours_is_no_outcome(facts: str) -> None:
    assert read_outcome(replace(ENTRY, metadata={**ENTRY.metadata, "facts": facts})) is None


@pytest.mark.parametrize(
    "absurd",
    [
        {"load": 1e308},
        {"load": -1.0},
        {"num_running": 1e9},
        {"reason": "x" * 9999},
        {"input_tokens": 1e300},
        {"input_tokens": -1.0},
        {"expected_cached_tokens": 1e300},
        {"ahead_tokens": 1e300},
        {"kv_cache_fraction": 1e300},
        {"own": 1e300},
        {"foreign": 1e300},
        {"scrape_age_s": 1e300},
        {"estimate": ExpectedWait(turns_s=1e300)},
        {"predicted_ttft_s": 1e300},
        {"text_bytes": 1 << 62},
        {"body_bytes": 1 << 62},
        {"priority": 1 << 62},
        {"token_limit": 1 << 62},
    ],
)
def test_facts_that_cannot_be_ours_are_no_outcome(absurd: dict[str, object]) -> None:
    assert read_outcome(replace(ENTRY, metadata=to_metadata(replace(FACTS, **absurd)))) is None


@pytest.mark.parametrize(
    "name", [name for name, kind in get_type_hints(PlacedFacts).items() if kind is not bool]
)
def test_every_text_and_number_of_the_facts_is_bounded(name: str) -> None:
    hint = get_type_hints(PlacedFacts, include_extras=True)[name]
    if hint is ExpectedWait:
        hint = tuple[*get_type_hints(ExpectedWait, include_extras=True).values()]
        assert all("le=" in repr(kind) for kind in get_args(hint))
    described = " ".join(map(repr, (hint, *get_args(hint))))
    assert name == "is_stream" or "le=" in described or "max_length=" in described


numbers = st.floats(0.0, 1e6)
words = st.text(max_size=64)
REQUIRED = {
    **dict.fromkeys(("num_waiting", "own", "foreign", "input_tokens"), numbers),
    **dict.fromkeys(("text_bytes", "body_bytes"), st.integers(0, 1 << 40)),
    "kv_cache_fraction": st.floats(0.0, 1.0),
    **dict.fromkeys(("backend", "layer", "reason", "zone", "kind"), words),
}


@given(
    st.builds(
        PlacedFacts,
        booking=st.integers(0, 2**62),
        load=numbers,
        num_running=numbers,
        scrape_age_s=st.none() | numbers,
        **REQUIRED,
    )
)
def test_facts_come_back_as_they_were_sent(facts: PlacedFacts) -> None:
    assert from_metadata(to_metadata(facts)) == facts


def entry(stage: str, *flags: str, status: int = 0, second: str = "vllm-2") -> LogEntry:
    tags = {"retry_stage": stage, "retry_first": "vllm-1", "retry_second": second}
    return LogEntry(0.0, None, status, 1, frozenset(flags), 0, {}, {k: v for k, v in tags.items() if v})


def test_an_exchange_is_no_second_attempt() -> None:
    assert read_retry(LogEntry(0.0, 1.0, 200, 2, frozenset(), 0, {}, {"ttft_us": "1"})) is None
    assert read_retry(entry("DownstreamEnd")) is None


def test_a_second_attempt_that_was_sent_says_nothing_of_its_backend_yet() -> None:
    sent = read_retry(entry("UpstreamPoolReady"))
    assert sent == Retry("vllm-1", "vllm-2", RetryStage.SENT, was_sent=True, is_failure=None)


@pytest.mark.parametrize(
    ("flags", "status", "was_sent", "is_failure"),
    [
        ((), 200, True, False),
        ((), 400, True, False),
        ((), 500, True, True),
        (("UC",), 0, True, True),
        (("UF",), 0, False, True),
        (("DC",), 0, True, None),
    ],
)
def test_the_end_of_a_second_attempt_tells_how_its_backend_did(
    flags: tuple[str, ...], status: int, was_sent: bool, is_failure: bool | None
) -> None:
    ended = read_retry(entry("UpstreamEnd", *flags, status=status))
    assert ended == Retry("vllm-1", "vllm-2", RetryStage.ENDED, was_sent, is_failure)


def test_a_second_attempt_for_which_there_was_no_backend_was_not_sent() -> None:
    ended = read_retry(entry("UpstreamEnd", "UH", second=""))
    assert ended is not None
    assert (ended.second, ended.was_sent) == ("", False)


@pytest.mark.parametrize(
    ("grpc_status", "failure", "is_failure"),
    [
        ("0", None, False),
        ("1", "client_left", None),
        ("3", "client_error", False),
        ("4", "client_left", None),
        ("8", "overloaded", None),
        ("12", "client_error", False),
        ("13", "server_error", True),
        ("14", "server_error", True),
    ],
)
def test_the_status_of_grpc_tells_whether_the_server_is_to_blame(
    grpc_status: str, failure: str | None, is_failure: bool | None
) -> None:
    outcome = read_outcome(replace(ENTRY, tags={"grpc_status": grpc_status}))
    assert outcome is not None
    assert (outcome.sample.failure, outcome.is_backend_failure) == (failure, is_failure)
