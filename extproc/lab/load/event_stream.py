"""A streamed completion as it passes by: whether it ended well, and the token counts at its end.

Of the events only the last are read; a stream of hundreds of tokens is searched, not parsed, because the
client shares its machine with what it measures.
"""

import msgspec

_TAIL_BYTES = 4096
"""Guessed: the last events, usage included, are 500 bytes at vLLM."""
_END = b"data: [DONE]"
_ERROR = b'data: {"error"'  # inside an event's texts every quote is escaped, so this is no text


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
    """What has come of a stream; memory is bounded whatever the server sends."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.has_error = False
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        self.size_bytes += len(data)
        seen = self._tail + data
        self.has_error = self.has_error or _ERROR in seen
        self._tail = seen[-_TAIL_BYTES:]

    @property
    def is_complete(self) -> bool:
        """The stream has said that it ended, and nothing of an error."""
        return not self.has_error and _END in self._tail

    def usage(self) -> Usage | None:
        """The counts of the last event that has some; None where none has."""
        for line in reversed(self._tail.splitlines()):
            if line.startswith(b"data: {"):
                try:
                    event = _decoder.decode(line[len(b"data: ") :])
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    return None
                if event.usage is not None:
                    return event.usage
        return None
