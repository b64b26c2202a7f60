"""The content of a body: unpacked if it is compressed, and in UTF-8.

Servers read JSON as Python does, in UTF-16 and UTF-32 too (RFC 8259 allows UTF-8 alone). Compressed bodies
are unpacked by the shipped envoy.yaml already, for the server as well; here they are unpacked for other
gateways, to read them, and the server gets the original. Both are bounded, as the event loop waits meanwhile:
a body that would grow beyond the bounds is not read at all, however small it is.
"""

import codecs
import json
import zlib
from collections.abc import Mapping
from typing import Final

_MAX_UNPACKED_BYTES: Final = 2 << 20
_MAX_RATIO: Final = 50
_ALWAYS_UNPACKED_BYTES: Final = 64 << 10
"""Measured: the worst that is unpacked takes 20 ms, and a bomb 1 ms; real requests shrink to a tenth."""

_MAX_WIDE_BYTES: Final = 8 << 20
"""Measured: converting so much takes 17 ms."""

_WINDOW_BITS: Final = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}
"""zlib's names for the formats; deflate comes with zlib's header, and from some clients without."""

PACKED_HEADER: Final = "x-extproc-packed"
"""How the body came to Envoy. Where Envoy has unpacked it, there is no `content-encoding` any more."""

_ENDS: Final = (b"}", b"]", b"--")
"""Those of JSON and of a form: every body that an engine works on has one of them."""

_WIDE_STARTS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"\0", b"{\0", b"[\0")


def readable_content(body: bytes, encoding: str) -> bytes | None:
    """Return the content in UTF-8, `encoding` being that of the header; None where it cannot be had."""
    if not encoding and body.startswith(b'{"'):
        return body
    coding = encoding and encoding.strip().lower()
    content = body if coding in ("", "identity") else _unpacked(body, coding)
    return _as_utf8(content) if content is not None and content.startswith(_WIDE_STARTS) else content


def is_cut_off(headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether Envoy has unpacked a body that does not come to an end: a bomb, or a damaged one."""
    if PACKED_HEADER not in headers or "content-encoding" in headers:
        return False
    return not body.rstrip(b" \t\r\n\0").endswith(_ENDS)


def _unpacked(body: bytes, coding: str) -> bytes | None:
    limit = min(_MAX_UNPACKED_BYTES, max(_ALWAYS_UNPACKED_BYTES, _MAX_RATIO * len(body)))
    for window_bits in _WINDOW_BITS.get(coding, ()):
        stream = zlib.decompressobj(window_bits)
        try:
            content = stream.decompress(body, limit)
        except zlib.error:
            continue
        return content if stream.eof else None
    return None


def _as_utf8(body: bytes) -> bytes | None:
    if len(body) > _MAX_WIDE_BYTES:
        return None
    try:
        return body.decode(json.detect_encoding(body), "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
