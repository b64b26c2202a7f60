from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.api import IMAGES, OTHER, TRANSCRIPTION, Api
from extproc.request.body import read_body
from extproc.request.body_facts import BodyFacts, InputSize
from extproc.request.conversation import AUDIO_TOKENS, IMAGE_TOKENS
from extproc.request.form import read_form

AUDIO = bytes(range(256)) * 4000


def part(name: str, value: bytes, disposition: str = "") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"{disposition}\r\n\r\n'.encode() + value


def file(name: str, content: bytes) -> bytes:
    return part(name, content, f'; filename="{name}.bin"\r\nContent-Type: application/octet-stream')


def form(*parts: bytes, boundary: bytes = b"----b42", end: bytes = b"--\r\n") -> bytes:
    separator = b"--" + boundary
    return b"".join(b"%s\r\n%s\r\n" % (separator, each) for each in parts) + separator + end


@pytest.mark.parametrize("is_first", [True, False])
def test_fields_are_read_before_and_after_the_file(is_first: bool) -> None:
    fields = [part("model", b"whisper"), part("stream", b"True"), part("prompt", b"four")]
    parts = [*fields, file("file", AUDIO)] if is_first else [file("file", AUDIO), *fields]
    expected = BodyFacts("whisper", True, InputSize(4, 0, AUDIO_TOKENS), None, True)
    assert read_body(TRANSCRIPTION, form(*parts)) == expected


def test_every_file_counts_as_its_api_says_and_never_as_text() -> None:
    body = form(part("model", b"m"), file("image", AUDIO), file("image", AUDIO), part("prompt", b"a" * 9000))
    assert read_body(IMAGES, body).input_size == InputSize(9000, 0, 2 * IMAGE_TOKENS)


def test_a_form_is_read_whatever_the_path() -> None:
    assert read_body(OTHER, form(part("model", b"m"), file("file", AUDIO))).model == "m"


@pytest.mark.parametrize(
    "head",
    [
        b'content-disposition: form-data; name="model"',
        b"Content-Disposition: form-data; name=model",
        b'Content-Type: text/plain; charset=utf-8\r\nContent-Disposition:form-data;name="model"',
        b'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: 8bit',
    ],
)
def test_clients_write_the_head_of_a_part_in_several_ways(head: bytes) -> None:
    for before in (b"", b"\r\n"):
        assert read_body(TRANSCRIPTION, before + form(head + b"\r\n\r\ngr\xc3\xb6\xc3\x9fe")).model == "größe"


def test_last_of_two_fields_counts_as_in_the_server() -> None:
    assert read_body(TRANSCRIPTION, form(part("model", b"a"), part("model", b"b"))).model == "b"


def test_a_file_that_looks_like_a_field_is_a_file() -> None:
    fake = b'\r\n------other\r\nContent-Disposition: form-data; name="model"\r\n\r\nfake\r\n'
    body = form(part("model", b"m"), file("file", fake * 100))
    assert read_body(TRANSCRIPTION, body).model == "m"
    assert read_body(TRANSCRIPTION, form(file("model", b"m"))).model is None


@pytest.mark.parametrize(
    ("value", "limit"),
    [(b"64", 64), (b" 7 ", 7), (b"0", None), (b"-1", None), (b"9" * 40, None), (b"x", None)],
)
def test_token_limit_of_a_form_is_read(value: bytes, limit: int | None) -> None:
    api = replace(TRANSCRIPTION, token_limit_fields=("max_completion_tokens",))
    assert read_body(api, form(part("max_completion_tokens", value))).token_limit == limit


@pytest.mark.parametrize("stream", [b"false", b"0", b"", b"none"])
def test_other_values_are_no_stream(stream: bytes) -> None:
    assert not read_body(TRANSCRIPTION, form(part("stream", stream))).is_stream


@pytest.mark.parametrize("body", [b"", b"--", b"--\r\n", b"{}", b"-" * 5000, b'--b"model"whisper'])
def test_other_bodies_are_no_form(body: bytes) -> None:
    assert read_form(TRANSCRIPTION, body) is None


def test_a_form_that_is_cut_off_keeps_what_was_read() -> None:
    body = form(part("model", b"m"), file("file", AUDIO), part("stream", b"true"))
    facts = read_body(TRANSCRIPTION, body[:-5000])
    assert (facts.model, facts.is_stream) == ("m", False)


def test_only_the_first_parts_of_a_hostile_form_are_read() -> None:
    fields = [part(f"f{number}", b"") for number in range(10_000)]
    assert read_body(TRANSCRIPTION, form(part("model", b"m"), *fields, part("model", b"n"))).model == "m"
    assert read_body(TRANSCRIPTION, form(part("model", b"m" * 100_000))).model is None


apis = st.sampled_from([TRANSCRIPTION, IMAGES, OTHER])


@given(apis, st.lists(st.binary(max_size=80), max_size=4), st.binary(max_size=20))
def test_any_form_is_read(api: Api, parts: list[bytes], boundary: bytes) -> None:
    body = form(*parts, boundary=boundary)
    facts = read_body(api, body)
    assert 0 <= facts.input_size.text_bytes <= len(body)
