"""One streamed answer of the simulated vLLM: tokens as SSE events, written straight to the connection.

The HTTP server library parses the request and sends the headers; after that each token is one prepared chunk
and one write, without waking a coroutine per stream. This is what lets one core stream tens of thousands of
tokens a second.
"""

import asyncio

from extproc.lab.simulated_vllm.answers import VllmAnswer

MAX_UNREAD_BYTES = 32 * 1024
"""Guessed, and below the 64 KiB at which a transport pauses its protocol: beyond this a client reads too
slowly, and its tokens are held back as a mere count."""


class SseStream:
    """Where the tokens of one streamed request go.

    Tokens that a slow client leaves no room for are merged into one later event, as vLLM does: whatever the
    client does, no more than `MAX_UNREAD_BYTES` and one such event are held for it.
    """

    def __init__(self, transport: asyncio.WriteTransport, answer: VllmAnswer, is_chunked: bool) -> None:
        self._transport = transport
        self._answer = answer
        self._is_chunked = is_chunked
        self._token_frame = self._frame(answer.tokens(1))
        self._has_begun = False
        self._unsent_tokens = 0

    def add_token(self, is_last: bool) -> None:
        """Send the next token, or count it if the client is behind; the last one is always sent."""
        self._unsent_tokens += 1
        if self._transport.is_closing():
            return
        if is_last or self._transport.get_write_buffer_size() <= MAX_UNREAD_BYTES:
            self._transport.write(self._next_frames(is_last))
            self._has_begun = True
            self._unsent_tokens = 0

    def _next_frames(self, is_last: bool) -> bytes:
        if self._has_begun and self._unsent_tokens == 1 and not is_last:
            return self._token_frame
        first = b"" if self._has_begun else self._frame(self._answer.first())
        tokens = self._frame(self._answer.tokens(self._unsent_tokens, is_last))
        return first + tokens + (self._frame(self._answer.closing()) if is_last else b"")

    def _frame(self, events: bytes) -> bytes:
        """The events as one chunk of HTTP/1.1's chunked coding (RFC 9112, section 7.1)."""
        if not self._is_chunked or not events:
            return events
        return b"%x\r\n%b\r\n" % (len(events), events)
