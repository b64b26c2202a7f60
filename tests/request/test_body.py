import json
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.request.api import (
    APIS,
    CHAT,
    COMPLETION,
    COUNT_TOKENS,
    EMBEDDING,
    MESSAGES,
    OTHER,
    RESPONSES,
    SCORE,
    TOKENIZE,
    Api,
)
from extproc.request.body import read_body
from extproc.request.body_facts import BodyFacts, InputSize
from extproc.request.conversation import AUDIO_TOKENS, FILE_TOKENS, IMAGE_TOKENS, VIDEO_TOKENS

KNOWN_APIS = (*APIS, OTHER)
DEEP = 100_000


def encoded(value: Any, *, ensure_ascii: bool = False) -> bytes:
    return json.dumps(value, ensure_ascii=ensure_ascii).encode()


def size_of(api: Api, **fields: Any) -> InputSize:
    facts = read_body(api, encoded({"model": "m", **fields}))
    assert facts.is_readable
    return facts.input_size


def message(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("api", KNOWN_APIS, ids=attrgetter("kind"))
def test_model_and_stream_are_read_for_every_api(api: Api) -> None:
    facts = read_body(api, encoded({"stream": True, "seed": 1, "model": "org/größe"}))
    assert (facts.model, facts.is_stream, facts.is_readable) == ("org/größe", True, True)


@pytest.mark.parametrize("model", [None, "", 7, ["m"], {"name": "m"}, True])
def test_model_that_is_no_name_is_unknown_and_hides_nothing_else(model: Any) -> None:
    facts = read_body(CHAT, encoded({"model": model, "messages": message("four"), "stream": True}))
    assert facts == BodyFacts(None, True, InputSize(text_bytes=4), None, True)


def test_long_model_name_is_taken_as_it_is() -> None:
    assert read_body(CHAT, encoded({"model": "m" * 1000})).model == "m" * 1000


@pytest.mark.parametrize("key", ['"model"', '"\\u006dodel"'])
def test_long_model_name_in_a_large_body_is_taken_as_it_is(key: str) -> None:
    name = "m" * 20_000
    body = f'{{"messages": [{{"role": "user", "content": "{"x" * 20_000}"}}], {key} : "{name}"}}'
    assert read_body(CHAT, body.encode()).model == name


def test_last_of_duplicate_fields_counts() -> None:
    assert read_body(CHAT, b'{"model": "a", "model": "b"}').model == "b"


@pytest.mark.parametrize("stream", [None, 1, "true", [True], False])
def test_only_true_is_a_stream(stream: Any) -> None:
    assert not read_body(CHAT, encoded({"stream": stream})).is_stream


@pytest.mark.parametrize(
    ("api", "field"),
    [
        (CHAT, "max_tokens"),
        (CHAT, "max_completion_tokens"),
        (COMPLETION, "max_tokens"),
        (RESPONSES, "max_output_tokens"),
    ],
)
def test_token_limit_is_read_from_the_field_of_its_api(api: Api, field: str) -> None:
    assert read_body(api, encoded({field: 64})).token_limit == 64


def test_newer_token_limit_of_chat_wins() -> None:
    assert read_body(CHAT, encoded({"max_tokens": 5, "max_completion_tokens": 6})).token_limit == 6
    assert read_body(CHAT, encoded({"max_tokens": 5, "max_completion_tokens": None})).token_limit == 5


@pytest.mark.parametrize(
    "limit", ["0", "-1", "1.5", "true", "null", '"9"', "[1]", "1" + "0" * 30, "9" * 9999]
)
def test_token_limit_that_is_no_sensible_count_is_unknown(limit: str) -> None:
    facts = read_body(CHAT, b'{"model": "m", "max_tokens": %s}' % limit.encode())
    assert (facts.model, facts.token_limit, facts.is_readable) == ("m", None, True)


@pytest.mark.parametrize(
    ("prompt", "size"),
    [
        ("four", InputSize(text_bytes=4)),
        ("漢\n", InputSize(text_bytes=4)),
        (["ab", "c", ""], InputSize(text_bytes=3, prompts=3)),
        ([1, 22, 333], InputSize(exact_tokens=3)),
        ([7], InputSize(exact_tokens=1)),
        ([[1, 2], [3], [4, 5, 6]], InputSize(exact_tokens=6, prompts=3)),
        (["abc", [1, 2]], InputSize(text_bytes=3, exact_tokens=2, prompts=2)),
        ([], InputSize()),
        ([[]], InputSize()),
        ("", InputSize()),
        (None, InputSize()),
    ],
)
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_prompt_is_sized_in_every_shape(prompt: Any, size: InputSize, ensure_ascii: bool) -> None:
    body = encoded({"prompt": prompt}, ensure_ascii=ensure_ascii)
    assert read_body(COMPLETION, body).input_size == size
    embedding = encoded({"input": prompt}, ensure_ascii=ensure_ascii)
    assert read_body(EMBEDDING, embedding).input_size == size


@pytest.mark.parametrize("prompt", [{"text": "ab"}, 12, [{"a": 1}], [["ab"]]])
def test_prompt_of_odd_shape_is_sized_by_its_bytes(prompt: Any) -> None:
    size = size_of(COMPLETION, prompt=prompt)
    assert len(encoded(prompt)) - 2 <= size.text_bytes <= len(encoded(prompt))


@given(st.lists(st.lists(st.integers(0, 200_000), min_size=1, max_size=300), min_size=1, max_size=80))
def test_token_ids_are_counted_exactly(prompts: list[list[int]]) -> None:
    ids = sum(map(len, prompts))
    assert size_of(COMPLETION, prompt=prompts) == InputSize(exact_tokens=ids, prompts=len(prompts))
    assert size_of(EMBEDDING, input=[number for prompt in prompts for number in prompt]).exact_tokens == ids


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("is_last", [True, False])
def test_many_token_ids_are_counted_exactly(indent: int | None, is_last: bool) -> None:
    fields = {"prompt": list(range(50_000)), "model": "m", "logit_bias": {"5": 1}}
    body = {name: fields[name] for name in sorted(fields, reverse=not is_last)}
    facts = read_body(COMPLETION, json.dumps(body, indent=indent).encode())
    assert (facts.model, facts.input_size) == ("m", InputSize(exact_tokens=50_000))


def test_text_parts_count_as_text_and_media_parts_as_tokens() -> None:
    parts = [
        {"type": "text", "text": "one"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}},
        {"type": "input_audio", "input_audio": {"data": "A" * 5000, "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://example.com/v.mp4"}},
        {"type": "file", "file": {"file_data": "A" * 5000}},
        "bare",
        {"type": "something new"},
    ]
    media_tokens = IMAGE_TOKENS + AUDIO_TOKENS + VIDEO_TOKENS + FILE_TOKENS
    assert size_of(CHAT, messages=message(parts)) == InputSize(text_bytes=7, media_tokens=media_tokens)


def test_names_tool_calls_and_tools_count_as_text() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    call = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"a": "é"}'}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "name": "find", "content": "ok"},
    ]
    text_bytes = len("find") + len('{"a": "é"}'.encode()) + len("findok") + len(encoded(tools))
    assert size_of(CHAT, messages=messages, tools=tools) == InputSize(text_bytes=text_bytes)
    assert size_of(CHAT, messages=messages, tools=None).text_bytes == text_bytes - len(encoded(tools))


@pytest.mark.parametrize("messages", ["hello", 17, {"a": 1}, [1, 2], ["hello"]])
def test_messages_of_odd_shape_hide_nothing_else(messages: Any) -> None:
    facts = read_body(CHAT, encoded({"messages": messages, "model": "m", "stream": True, "max_tokens": 3}))
    assert (facts.model, facts.is_stream, facts.token_limit) == ("m", True, 3)
    assert 0 < facts.input_size.text_bytes <= len(encoded(messages))


@pytest.mark.parametrize("odd", [17, {"a": 1}, [7], [{"type": 5}], [{"type": "text", "text": 5}]])
def test_odd_content_hides_no_other_message(odd: Any) -> None:
    size = size_of(CHAT, messages=message(odd) + message("x" * 100))
    assert 100 < size.text_bytes <= 100 + len(encoded(odd))


def test_odd_tool_calls_are_sized_by_their_bytes() -> None:
    messages = [{"role": "assistant", "tool_calls": {"name": "f"}}]
    assert size_of(CHAT, messages=messages).text_bytes == len(encoded({"name": "f"}))


texts = st.text(max_size=40) | st.text(alphabet='"\\\n/aé漢😀', max_size=40)
parts = st.builds(lambda text: {"type": "text", "text": text}, texts) | st.just(
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}}
)
calls = st.builds(
    lambda name, arguments: {"type": "function", "function": {"name": name, "arguments": arguments}},
    texts,
    texts,
)
chat_messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "tool"]),
        "content": texts | st.none() | st.lists(parts, max_size=4),
    },
    optional={"name": texts, "tool_calls": st.lists(calls, max_size=3)},
)


def reference(messages: list[dict[str, Any]]) -> InputSize:
    media_tokens, text = 0, ""
    for each in messages:
        content = each["content"] or ""
        for part in [content] if isinstance(content, str) else content:
            text += part if isinstance(part, str) else part.get("text", "")
            media_tokens += IMAGE_TOKENS * (isinstance(part, dict) and "image_url" in part)
        text += each.get("name", "")
        for call in each.get("tool_calls", []):
            text += call["function"]["name"] + call["function"]["arguments"]
    return InputSize(text_bytes=len(text.encode()), media_tokens=media_tokens)


@given(st.lists(chat_messages, max_size=8), st.booleans(), st.sampled_from([None, 1]))
def test_chat_is_sized_like_its_decoded_json(
    messages: list[dict[str, Any]], ensure_ascii: bool, indent: int | None
) -> None:
    body = json.dumps({"model": "m", "messages": messages}, ensure_ascii=ensure_ascii, indent=indent).encode()
    assert read_body(CHAT, body).input_size == reference(json.loads(body)["messages"])


@given(st.lists(chat_messages, max_size=8), st.integers(4_000, 30_000), st.integers(0, 8))
def test_large_chat_without_escapes_is_sized_like_its_decoded_json(
    messages: list[dict[str, Any]], repeats: int, position: int
) -> None:
    messages.insert(position, {"role": "user", "content": "a漢😀 " * repeats})
    body = encoded({"messages": messages, "model": "m"})
    assert read_body(CHAT, body) == BodyFacts("m", False, reference(messages), None, True)


@pytest.mark.parametrize(
    "pattern",
    [
        "漢字かな",
        "Привет, мир! ",
        'tab\tline\n"quote" \\ back',
        "naïve 😀 text, ",
        "😀",
        "\x1b[1mbold\x1b[0m ",
    ],
)
@pytest.mark.parametrize("text_bytes", [10_000, 100_000, 1_000_000])
def test_escaped_text_is_sized_within_3_percent(pattern: str, text_bytes: int) -> None:
    text = pattern * (text_bytes // len(pattern.encode()))
    size = read_body(CHAT, encoded({"messages": message(text)}, ensure_ascii=True)).input_size
    assert size.text_bytes == pytest.approx(len(text.encode()), rel=0.03)


def test_large_chat_of_many_messages_is_sized_about_by_its_bytes() -> None:
    messages = message('Say "hello" to 漢.\n' * 50) * 1000
    body = encoded({"model": "m", "messages": messages}, ensure_ascii=True)
    facts = read_body(CHAT, body)
    assert facts.model == "m"
    assert facts.input_size.text_bytes == pytest.approx(reference(messages).text_bytes, rel=0.15)


def test_very_many_values_are_sized_by_their_bytes() -> None:
    for api, field, values in ((CHAT, "messages", [{}] * 40_000), (SCORE, "documents", [""] * 10_000)):
        body = encoded({"model": "m", field: values})
        assert read_body(api, body) == BodyFacts("m", False, InputSize(text_bytes=len(body)), None, True)


def test_long_description_of_a_tool_counts_as_text() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 30_000}}]
    assert size_of(CHAT, tools=tools).text_bytes == pytest.approx(len(encoded(tools)), abs=3)


def test_large_screenshots_among_many_messages_are_no_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 200_000}}
    messages = message([image]) * 10 + message("word " * 600) * 100
    body = encoded({"model": "m", "messages": messages})
    assert read_body(CHAT, body).input_size.text_bytes == pytest.approx(300_000, rel=0.15)


def test_field_after_a_long_string_is_read() -> None:
    text = 'a "quoted" \\ text ' * 100_000
    facts = read_body(
        CHAT, encoded({"messages": message(text), "model": "m", "stream": True, "max_tokens": 5})
    )
    assert (facts.model, facts.is_stream, facts.token_limit) == ("m", True, 5)


def test_embedding_of_messages_is_sized_like_a_chat() -> None:
    assert size_of(EMBEDDING, messages=message("four")) == InputSize(text_bytes=4)


def test_responses_count_items_instructions_and_tools() -> None:
    items = [
        {"role": "user", "content": "hello"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100},
                {"type": "input_file", "file_data": "A" * 100},
                {"type": "input_audio", "input_audio": {"data": "A" * 100}},
            ],
        },
        {"type": "function_call", "name": "find", "arguments": "{}"},
        {"type": "function_call_output", "output": "found"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]},
    ]
    size = size_of(RESPONSES, input=items, instructions="be brief", tools=[])
    assert size.text_bytes == len("hello" + "look" + "find" + "{}" + "found" + "yes" + "be brief" + "[]")
    assert size.media_tokens == IMAGE_TOKENS + FILE_TOKENS + AUDIO_TOKENS
    assert size_of(RESPONSES, input="hello") == InputSize(text_bytes=5)


def test_messages_count_system_blocks_and_tools() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 50_000}
    result = [{"type": "text", "text": "found"}, {"type": "image", "source": source}]
    turns = [
        {"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "look"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "A" * 500},
                {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": result}]},
        {"role": "user", "content": [{"type": "document", "source": source}]},
        {"role": "user", "content": "bye"},
    ]
    system = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    tools = [{"name": "find", "input_schema": {"type": "object"}}]
    size = size_of(MESSAGES, messages=turns, system=system, tools=tools)
    text = "look" + "hm" + "find" + "found" + "bye" + "be brief"
    assert size.text_bytes == len(text) + len(encoded({"a": 1})) + len(encoded(tools))
    assert size.media_tokens == 2 * IMAGE_TOKENS + FILE_TOKENS
    assert size_of(MESSAGES, messages=message("hello"), system="be") == InputSize(text_bytes=7)


def test_an_image_of_megabytes_is_an_image_in_every_api_and_beside_many_values() -> None:
    data = "iVBORw0KGgo" * 250_000
    anthropic = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    openai = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + data}}
    for api, part in ((MESSAGES, anthropic), (CHAT, openai)):
        assert size_of(api, messages=message([part])) == InputSize(media_tokens=IMAGE_TOKENS)
        crowd = message([part]) + message("hi") * 5000
        assert size_of(api, messages=crowd).text_bytes < 500_000
        assert size_of(OTHER, messages=message([part])).text_bytes < 1000


def test_content_in_content_without_an_end_is_sized_by_its_bytes() -> None:
    content: Any = "text"
    for _ in range(300):
        content = [{"type": "tool_result", "content": content}]
    assert 4 < size_of(MESSAGES, messages=message(content)).text_bytes <= len(encoded(content))


@pytest.mark.parametrize("api", [COUNT_TOKENS, TOKENIZE], ids=attrgetter("kind"))
@pytest.mark.parametrize("messages", [message("hello"), message("hi") * 10_000], ids=["short", "long"])
def test_text_that_is_only_counted_is_no_work(api: Api, messages: Any) -> None:
    facts = read_body(api, encoded({"model": "m", "messages": messages, "prompt": "a" * 5000}))
    assert (facts.model, facts.input_size) == ("m", InputSize())


def test_other_json_is_sized_by_its_bytes() -> None:
    body = encoded({"model": "reranker", "query": "a", "documents": ["b", "c"]})
    assert read_body(OTHER, body) == BodyFacts("reranker", False, InputSize(text_bytes=len(body)), None, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"model"',
        b"{",
        b'{"model": "m"',
        b'{"model": "m"} trailing',
        b"{'model': 'm'}",
        b'{"model": "m", "x": "\x00"}',
        b'{"model": "\xff\xfe"}',
        b'{"messages": ' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"messages": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
        '{"model": "m"}'.encode("utf-16"),
    ],
)
@pytest.mark.parametrize("api", KNOWN_APIS, ids=attrgetter("kind"))
def test_body_that_is_no_json_object_is_not_readable(body: bytes, api: Api) -> None:
    assert read_body(api, body) == BodyFacts(
        None, False, InputSize(text_bytes=min(len(body), 1024)), None, False
    )


@pytest.mark.parametrize(
    "body", [b"\x00\x01RIFF" * 500_000, b"--no form" * 300_000], ids=["audio", "no form"]
)
def test_a_large_body_that_is_not_read_is_not_text(body: bytes) -> None:
    assert read_body(OTHER, body).input_size.text_bytes <= 1024


def test_byte_order_mark_is_tolerated() -> None:
    assert read_body(CHAT, b'\xef\xbb\xbf{"model": "m"}').model == "m"


def test_model_in_invalid_utf8_is_unknown() -> None:
    facts = read_body(CHAT, b'{"model": "\xe6", "messages": [{"content": "\xe6\xe6"}]}')
    assert facts == BodyFacts(None, False, InputSize(text_bytes=2), None, True)


HALVES = [r"\ud83d", r"\uDE00", r"\ud83d\ud83d", r"\ude00\ud83d", r"\ud83d\ud83d\ude00", r"\ud83dn\\"]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("padding", [0, 20_000], ids=["short", "long"])
def test_half_a_surrogate_pair_hides_nothing(half: str, padding: int) -> None:
    """Python's parser takes it, and so do servers."""
    parts = [
        {"type": "text", "text": "HALF"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}},
    ]
    messages = [*message(parts), *message("x" * padding), *message("\\\\ud83d 😀")]
    fields = {"model": "m", "stream": True, "max_tokens": 7, "messages": messages}
    body = encoded(fields, ensure_ascii=True).replace(b"HALF", half.encode())
    text = "".join(part for part in json.loads(b'["%s"]' % half.encode()))
    facts = read_body(CHAT, body)
    assert (facts.model, facts.is_stream, facts.token_limit) == ("m", True, 7)
    assert facts.input_size.media_tokens == IMAGE_TOKENS
    expected = padding + len((text + "\\\\ud83d 😀").encode("utf-8", "surrogatepass"))
    assert facts.input_size.text_bytes == pytest.approx(expected, abs=3)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_only_python_takes_hide_nothing(number: str) -> None:
    body = b'{"model": "NaNo-Infinity", "top_p":%s, "x": [%s,1], "messages": "four"}'
    facts = read_body(CHAT, body % (number.encode(), number.encode()))
    assert (facts.model, facts.input_size) == ("NaNo-Infinity", InputSize(text_bytes=4))


def test_mending_a_hostile_body_takes_bounded_work() -> None:
    """Beyond that it is not read; the model of a body with fewer odd places is."""
    for count, model in ((10_000, "m"), (100_000, None)):
        facts = read_body(CHAT, b'{"model":"m","x":[%s1]}' % (b"NaN," * count))
        assert facts.model == model


@given(st.text(alphabet=st.characters(codec=None, categories=["Cs", "Ll"]), max_size=60))
def test_any_text_that_python_writes_hides_no_model(text: str) -> None:
    assert read_body(CHAT, encoded({"x": text, "model": "m"}, ensure_ascii=True)).model == "m"


def test_a_run_of_backslashes_before_a_quote_does_not_mislead() -> None:
    for count in range(60, 70):
        text = "x" * 20_000 + "\\" * count + '"' + "y" * 5000
        facts = read_body(CHAT, encoded({"messages": message(text), "model": "m"}))
        assert facts.model == "m"
        assert facts.input_size.text_bytes == pytest.approx(len(text), rel=0.01)


INPUT_FIELDS = ["messages", "prompt", "input", "instructions", "tools"]
INNER_FIELDS = ["content", "type", "text", "tool_calls", "function", "name", "arguments", "output"]
names = st.sampled_from(["model", "stream", "max_tokens", *INPUT_FIELDS, *INNER_FIELDS])
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(names | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)
known_apis = st.sampled_from(KNOWN_APIS)


@pytest.mark.parametrize(
    ("space", "model"), [(b" " * 64, "m"), (b"\r\n\t " * 1000, "m"), (b" " * 10_000, None)]
)
def test_white_space_before_the_object_hides_it_only_where_there_is_absurdly_much(
    space: bytes, model: str | None
) -> None:
    assert read_body(EMBEDDING, space + b'{"model": "m"}').model == model


@given(known_apis, st.dictionaries(names, any_json, max_size=6), st.booleans())
def test_any_json_is_read(api: Api, fields: dict[str, Any], ensure_ascii: bool) -> None:
    body = encoded(fields, ensure_ascii=ensure_ascii)
    facts = read_body(api, body)
    assert 0 <= facts.input_size.text_bytes <= len(body)
    assert 0 <= facts.input_size.exact_tokens <= len(body)


@given(known_apis, st.binary(max_size=400) | st.binary(max_size=400).map(lambda tail: b'{"model":' + tail))
def test_any_bytes_are_read(api: Api, body: bytes) -> None:
    assert 0 <= read_body(api, body).input_size.text_bytes <= len(body)


large_bodies = st.sampled_from(
    [
        encoded({"messages": message("漢\n" * 10_000), "model": "m"}, ensure_ascii=True),
        encoded({"prompt": [[1, 2, 3] * 2000, [4] * 2000], "model": "m"}),
        encoded({"input": ["a" * 9000, "b\\" * 9000], "tools": [{"a": "b"}] * 500}),
    ]
)


@settings(max_examples=300)
@given(known_apis, large_bodies, st.integers(0, 80_000), st.binary(max_size=8), st.integers(0, 8))
def test_damaged_large_body_is_read(api: Api, body: bytes, at: int, put: bytes, drop: int) -> None:
    at %= len(body)
    damaged = body[:at] + put + body[at + drop :]
    facts = read_body(api, damaged)
    assert 0 <= facts.input_size.text_bytes <= len(damaged)


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[' + b"{}," * 400_000 + b'{}],"model":"m"}',
        b'{"messages":[' + b'{"content":"a"},' * 60_000 + b'{}],"model":"m"}',
        b'{"prompt":[' + b'"",' * 400_000 + b'""],"model":"m"}',
        b'{"prompt":"' + b'\\"' * 500_000 + b'","model":"m"}',
        b'{"prompt":"' + b"\\\\" * 500_000 + b'","model":"m"}',
        b'{"prompt":' + b" " * 1_000_000 + b'"a","model":"m"}',
    ],
    ids=["empty messages", "tiny messages", "tiny prompts", "quotes", "backslashes", "blanks"],
)
def test_model_is_found_in_a_hostile_body(body: bytes) -> None:
    facts = read_body(COMPLETION, body)
    assert facts.model == "m"
    assert facts.input_size.text_bytes <= len(body)
