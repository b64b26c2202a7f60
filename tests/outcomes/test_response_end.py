import pytest

from extproc.outcomes.response_end import TokenUsage, is_comment, read_stream_error, read_usage

CHAT = b'{"usage": {"prompt_tokens": 9, "total_tokens": 12, "completion_tokens": 3}}'
DETAILS = (
    b'"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3,'
    b'"prompt_tokens_details":{"audio_tokens":null,"cached_tokens":8}}'
)


@pytest.mark.parametrize(
    ("tail", "usage"),
    [
        (CHAT, TokenUsage(9, 3)),
        (b"data: {" + DETAILS + b"}\n\ndata: [DONE]\n\n", TokenUsage(9, 3, 8)),
        (b'{"usage":{"input_tokens":5,"cache_read_input_tokens":4,"output_tokens":2}}', TokenUsage(5, 2, 4)),
        (b'{"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":0}}}', TokenUsage(5, None, 0)),
        (DETAILS + b'}\n\ndata: {"choices":[],"usage":null}', TokenUsage(9, 3, 8)),
        (b'{"usage": {"prompt_tokens": 999999999}}', TokenUsage(10**7)),
        (b'{"usage": null}', None),
        (rb'{"content": "\"usage\": {\"prompt_tokens\": 7}"}', None),
        (DETAILS + b'"usage"' * 500, None),  # each of them would be looked through to the end
        (b"", None),
        (b"\xff" * 100, None),
    ],
)
def test_usage_is_the_last_one_with_numbers(tail: bytes, usage: TokenUsage | None) -> None:
    assert read_usage(tail) == usage


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        (b'data: {"error": {"message": "m", "code": 400}}\n\n', "400"),
        (b'data: {}\n\ndata: {"error":{"code":"503"}}\n\ndata: [DONE]\n\n', "503"),
        (b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n', "500"),
        (b'data: {"choices": [{"delta": {"content": "data: {\\"error\\": {}}"}}]}\n\n', None),
        (b"", None),
    ],
)
def test_an_error_is_an_event_of_its_own(tail: bytes, code: str | None) -> None:
    assert read_stream_error(tail) == code


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        (b": ping\n\n", True),
        (b": ping\n\n: ping\n\n", True),
        (b": ping\n\ndata: {}\n\n", False),
        (b"data: {}\n\n", False),
        (b"{}", False),
    ],
)
def test_comments_are_distinguished_from_the_lines_after_them(data: bytes, is_one: bool) -> None:
    assert is_comment(data) == is_one
