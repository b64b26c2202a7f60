"""How long the server took, as Envoy has timed it: to the headers, the first token, and the last byte.

Comments by which a server keeps a stream alive come before its first token
(https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6). Envoy's time of the first
byte is theirs, and its Lua filter tells how long there was nothing else.
"""

from collections.abc import Mapping

import msgspec

TTFT_TAG = "ttft_us"
"""From the last byte of the request that was sent to the first one of the response's body."""
DECODE_TAG = "decode_us"
"""From the first byte of the response that came from the server to the last one."""
HEADERS_TAG = "headers_us"
"""From the last byte of the request that was sent to the first one of the response's headers."""
COMMENTS_KEY = "comments_ms"
"""In the metadata of a stream that began with comments: how long there was nothing else (see envoy.yaml)."""

MAX_TIME_S = 24 * 3600.0
EARLY_S = 0.01
"""Guessed: headers and a first token that are nearer to each other may have been sent as one."""


class ServerTimes(msgspec.Struct, frozen=True):
    """Seconds from the request to the first token, or answer, and from there to the end; None if not known.

    `are_headers_early` tells whether the headers came well before.
    """

    first_token_s: float | None
    decode_s: float | None
    are_headers_early: bool | None

    @property
    def whole_s(self) -> float | None:
        """The server's part of the exchange."""
        if self.first_token_s is None or self.decode_s is None:
            return None
        return self.first_token_s + self.decode_s


def read_times(tags: Mapping[str, str], metadata: Mapping[str, str]) -> ServerTimes:
    """Read what the tags of a log entry tell, and the metadata of its exchange."""
    first_s, decode_s = _seconds(tags.get(TTFT_TAG), 1e6), _seconds(tags.get(DECODE_TAG), 1e6)
    if COMMENTS_KEY in metadata and first_s is not None and decode_s is not None:
        comments_s = _seconds(metadata[COMMENTS_KEY], 1e3)
        if comments_s is None:
            return ServerTimes(None, None, None)  # nothing else has come
        first_s, decode_s = first_s + comments_s, max(0.0, decode_s - comments_s)
    headers_s = _seconds(tags.get(HEADERS_TAG), 1e6)
    are_early = None
    if headers_s is not None and first_s is not None:
        are_early = first_s - headers_s > (headers_s if headers_s > EARLY_S else EARLY_S)
    return ServerTimes(first_s, decode_s, are_early)


def _seconds(text: str | None, per_s: float) -> float | None:
    try:
        time_s = float(text or "") / per_s
    except ValueError:
        return None
    return time_s if 0.0 <= time_s <= MAX_TIME_S else None
