"""The short way to read a chat: text only and every field of the usual shape, as most chats are.

It takes a third of the time of `body`'s way, which works for every shape and gives the same facts.
"""

from typing import Final

import msgspec

from extproc.request.body_facts import BodyFacts, InputSize, TokenLimit
from extproc.request.literal import ODD_SHAPE

# Measured: up to here the plain way is the shorter one for code and ASCII, by a factor of three, for 2,000
# short messages by one of ten; for other alphabets it is half as long again, and beyond this more than that.
_PLAIN_UP_TO_BYTES: Final = 80 * 1024


class _PlainMessage(msgspec.Struct, gc=False):
    """A message whose content is all of its text; the other fields that may hold text are null or absent."""

    content: str
    name: None = None
    tool_calls: None = None
    arguments: None = None
    output: None = None


class PlainChat(msgspec.Struct, gc=False):
    """The fields of a chat's row in the table of APIs, in the shapes that need no closer look."""

    model: str
    messages: list[_PlainMessage]
    stream: bool = False
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    tools: None = None


_PLAIN_CHAT: Final = msgspec.json.Decoder(PlainChat)


def read_plain_chat(body: bytes) -> BodyFacts | None:
    """Read a chat of plain text; None for a body that has to go the long way."""
    if len(body) > _PLAIN_UP_TO_BYTES:
        return None
    try:
        chat = _PLAIN_CHAT.decode(body)
    except ODD_SHAPE:
        return None
    text_bytes = 0
    for message in chat.messages:
        text = message.content
        text_bytes += len(text) if text.isascii() else len(text.encode())
    limit = chat.max_completion_tokens or chat.max_tokens
    return BodyFacts(chat.model or None, chat.stream, InputSize(text_bytes), limit, True)
