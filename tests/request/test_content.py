import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.content import PACKED_HEADER, is_cut_off, readable_content

TEXT = json.dumps({"model": "m", "prompt": "größe 漢字 " * 50}, ensure_ascii=False)
BODY = TEXT.encode()


def raw_deflate(content: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(content) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", raw_deflate(BODY)),
        ("gzip", gzip.compress(TEXT.encode("utf-16"))),
        ("", BODY),
        ("Identity ", BODY),
    ],
)
def test_content_is_unpacked(encoding: str, packed: bytes) -> None:
    assert readable_content(packed, encoding) == BODY


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8"]
)
def test_json_is_read_in_every_encoding_that_pythons_parser_takes(encoding: str) -> None:
    content = readable_content(TEXT.encode(encoding), "")
    assert content is not None
    assert json.loads(content.decode()) == json.loads(TEXT)


def test_half_a_surrogate_pair_is_kept_whatever_the_encoding() -> None:
    wide = '{"a": "\ud83d"}'.encode("utf-16", "surrogatepass")
    assert readable_content(wide, "") == '{"a": "\ud83d"}'.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("size", [32 << 20, 300 << 20], ids=["32 MiB", "300 MiB"])
def test_a_bomb_is_not_unpacked(size: int) -> None:
    assert readable_content(gzip.compress(b"\0" * size, 1), "gzip") is None


def test_what_shrinks_as_text_does_is_unpacked_up_to_two_megabytes() -> None:
    words = " ".join(f"word{number % 977} {number}" for number in range(100_000)).encode()
    assert readable_content(gzip.compress(words), "gzip") == words
    assert readable_content(gzip.compress(words * 3), "gzip") is None


@pytest.mark.parametrize(
    "packed", [b"", b"no gzip", gzip.compress(BODY)[:-9], b"\x1f\x8b\x08", b"\0" * 50], ids=len
)
def test_what_cannot_be_unpacked_is_not_read(packed: bytes) -> None:
    assert readable_content(packed, "gzip") is None
    assert readable_content(packed, "zstd") is None


@given(st.binary(max_size=200), st.sampled_from(["", "gzip", "deflate", "zstd", "gzip,deflate"]))
def test_no_bytes_make_it_raise(body: bytes, encoding: str) -> None:
    readable_content(body, encoding)
    readable_content(b"\xff\xfe" + body, encoding)
    readable_content(b"\0\0\xfe\xff" + body, encoding)


@pytest.mark.parametrize(
    ("end", "is_whole"),
    [
        (b"}", True),
        (b"}\r\n", True),
        ("}".encode("utf-16-le"), True),
        (b"\r\n--b4--\r\n", True),
        (b"aaa", False),
        (b"", False),
    ],
)
def test_a_body_that_envoy_could_not_unpack_whole_is_known_by_its_end(end: bytes, is_whole: bool) -> None:
    body = b'{"model": "m", "prompt": "aaa' + end
    assert is_cut_off({PACKED_HEADER: "gzip"}, body) != is_whole
    assert not is_cut_off({}, body)
    assert not is_cut_off({PACKED_HEADER: "br", "content-encoding": "br"}, body), "it is packed still"
