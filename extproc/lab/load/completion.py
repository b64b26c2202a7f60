"""One streamed completion of the load generator: the body of its request, and the stream that comes back.

The prompt consists of token ids, so that its length is exact. The ids are random, so no prompt shares a
prefix with another and no prefix cache helps, and from a range that every vocabulary has. `ignore_eos` makes
the output as long as it was asked to be. A stream of hundreds of tokens is searched, not parsed, because the
client shares its machine with the server that it measures.
"""

import msgspec
import numpy as np

PATH = "/v1/completions"

_FIRST_ID, _LAST_ID = 100, 999
"""Above the special tokens that vocabularies begin with, below the end of even the smallest."""
_ID_TEXTS = np.array([list(b"%d," % number) for number in range(_FIRST_ID, _LAST_ID + 1)], np.uint8)
"""All ids have three digits, so a prompt is one gather from this table of shape (900, 4)."""

_TAIL_BYTES = 4096
"""Guessed: the last events, usage included, are 500 bytes at vLLM."""
_END = b"data: [DONE]"
_ERROR = b'data: {"error"'  # inside an event's texts every quote is escaped, so this is no text


def completion_body(model: str, prompt_tokens: int, output_tokens: int, rng: np.random.Generator) -> bytes:
    """Ask for a streamed completion with exactly these lengths and a usage event at its end."""
    ids = _ID_TEXTS[rng.integers(len(_ID_TEXTS), size=prompt_tokens)].tobytes()[:-1]
    return (
        b'{"model":%b,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true,'
        b'"max_tokens":%d,"prompt":[%b]}' % (msgspec.json.encode(model), output_tokens, ids)
    )


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Token counts as the server gives them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens from the prefix cache; None where the server does not say."""
        return None if self.prompt_tokens_details is None else self.prompt_tokens_details.cached_tokens


class _Event(msgspec.Struct):
    usage: Usage | None = None


_decoder = msgspec.json.Decoder(_Event)


class EventStream:
    """The part of a stream that has come; memory is bounded whatever the server sends."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.has_error = False
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        self.size_bytes += len(data)
        seen = self._tail + data
        self.has_error = self.has_error or _ERROR in seen
        self._tail = seen[-_TAIL_BYTES:]

    @property
    def is_complete(self) -> bool:
        """The stream has said that it ended, and nothing of an error."""
        return not self.has_error and _END in self._tail

    def usage(self) -> Usage | None:
        """Return the counts of the last event that has some; None where none has."""
        for line in reversed(self._tail.splitlines()):
            if line.startswith(b"data: {"):
                try:
                    event = _decoder.decode(line[len(b"data: ") :])
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    return None
                if event.usage is not None:
                    return event.usage
        return None
