"""The size of a conversation: of messages (chat, Anthropic's API) and of the items of `/v1/responses`.

A message of the usual shape is decoded and measured. One of another shape, or a long one, is taken apart, so
that an odd field costs its own exactness and no other's, and no long text is decoded.

Images, audio and video are a flat number of tokens each, whatever their bytes: how many tokens they become
depends on pixels and seconds, and on the model. The numbers are borrowed from the llm-d router's estimator
where it knows nothing else (llm-d/llm-d-router, dataproducer/tokenizer/mm_estimate.go).
"""

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from extproc.request.literal import ODD_SHAPE, field_bytes

IMAGE_TOKENS: Final = 225  # borrowed, llm-d: 640 x 360 pixels, 1,024 of them a token
AUDIO_TOKENS: Final = 139  # borrowed, llm-d: 10 s of 12.5 tokens, and 14 around them
VIDEO_TOKENS: Final = 4500  # borrowed, llm-d: 10 s of 2 frames, each an image
FILE_TOKENS: Final = 225  # guessed: a file is a page, and a page is an image

_MEDIA_TOKENS: Final = {
    "image_url": IMAGE_TOKENS,
    "input_image": IMAGE_TOKENS,
    "image_pil": IMAGE_TOKENS,
    "image_embeds": IMAGE_TOKENS,
    "audio_url": AUDIO_TOKENS,
    "input_audio": AUDIO_TOKENS,
    "audio_embeds": AUDIO_TOKENS,
    "video_url": VIDEO_TOKENS,
    "file": FILE_TOKENS,
    "input_file": FILE_TOKENS,
    "image": IMAGE_TOKENS,  # this and the next one are Anthropic's
    "document": FILE_TOKENS,
}

_BLOCKS: Final = frozenset({"tool_use", "tool_result", "thinking", "search_result", "server_tool_use"})
"""Types of Anthropic's content blocks that hold text elsewhere than in `text`."""

_DECODED_UP_TO_BYTES: Final = 16 * 1024
"""Measured: what is longer is sampled in less time than it is decoded."""

_ABSENT: Final = Raw()
_BRACKET: Final = ord("[")

_Element = TypeVar("_Element")


class InnerPart(msgspec.Struct, gc=False):
    """A part of a part's content; all but its text are fields of Anthropic's content blocks."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    input: Raw = _ABSENT
    content: Raw = _ABSENT


class Part(msgspec.Struct, gc=False):
    """A part of a message's content, which may have parts itself."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    input: Raw = _ABSENT
    content: str | list[InnerPart] | None = None


class Function(msgspec.Struct, gc=False):
    """The function of a tool call, and the arguments as the model wrote them."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    """A call of a tool in a chat message."""

    function: Function


Content = str | list[Part] | None


class Message(msgspec.Struct, gc=False):
    """A chat message, or a responses item: a message, a function call or a function's output."""

    content: Content = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    arguments: str | None = None
    output: Content = None


class _OddMessage(msgspec.Struct, gc=False):
    content: Raw = _ABSENT
    name: Raw = _ABSENT
    tool_calls: Raw = _ABSENT
    arguments: Raw = _ABSENT
    output: Raw = _ABSENT


class _OddPart(msgspec.Struct, gc=False):
    type: str = ""
    text: Raw = _ABSENT
    thinking: Raw = _ABSENT
    name: Raw = _ABSENT
    input: Raw = _ABSENT
    content: Raw = _ABSENT


_ARRAY: Final = msgspec.json.Decoder(list[Raw])
_MESSAGE: Final = msgspec.json.Decoder(Message)
_ODD_MESSAGE: Final = msgspec.json.Decoder(_OddMessage)
_PARTS: Final = msgspec.json.Decoder(list[Part])
_INNER_PARTS: Final = msgspec.json.Decoder(list[InnerPart])
_ODD_PART: Final = msgspec.json.Decoder(_OddPart)
_TOOL_CALLS: Final = msgspec.json.Decoder(list[ToolCall])

Size = tuple[int, int]
"""Bytes of text, and tokens of media."""


def messages_size(messages: Iterable[Message]) -> Size:
    """Size messages of the usual shape."""
    text_bytes, media_tokens = 0, 0
    for message in messages:
        content = message.content
        if isinstance(content, str) and content.isascii():  # as nearly all are
            text_bytes += len(content)
            content = None
        if content is not None or message.output is not None:
            for other in (content, message.output):
                other_bytes, other_tokens = content_size(other)
                text_bytes += other_bytes
                media_tokens += other_tokens
        if message.name is not None or message.arguments is not None:
            text_bytes += utf8_bytes(message.name) + utf8_bytes(message.arguments)
        if message.tool_calls is not None:
            text_bytes += _calls_bytes(message.tool_calls)
    return text_bytes, media_tokens


def content_size(content: str | Sequence[Part | InnerPart] | None) -> Size:
    """Size a text, parts, or nothing."""
    if content is None or isinstance(content, str):
        return utf8_bytes(content), 0
    return _sum([_part_size(part) for part in content])


def utf8_bytes(text: str | None) -> int:
    """Return how many bytes of UTF-8 a text has; none where there is none."""
    if not text or text.isascii():
        return len(text or "")
    return len(text.encode())


def raw_messages_size(raw: Raw) -> Size:
    """Size an array of messages or items of any shape; anything else counts as text."""
    messages = _decoded(_ARRAY, raw)
    if messages is None:
        return field_bytes(raw), 0
    return _sum([_raw_message_size(message) for message in messages])


def raw_content_size(raw: Raw, *, is_nested: bool = False) -> Size:
    """Size a string, null, or an array of parts, also nested; anything else counts as text."""
    if _is_short(raw):
        usual = _decoded(_INNER_PARTS, raw) if is_nested else _decoded(_PARTS, raw)
        if usual is not None:
            return content_size(usual)
    parts = _decoded(_ARRAY, raw)
    if parts is None:
        return field_bytes(raw), 0
    return _sum([_raw_part_size(part, is_nested) for part in parts])


def _part_size(part: Part | InnerPart) -> Size:
    text_bytes, media_tokens = utf8_bytes(part.text), _MEDIA_TOKENS.get(part.type, 0)
    if part.type not in _BLOCKS:
        return text_bytes, media_tokens
    text_bytes += utf8_bytes(part.thinking) + utf8_bytes(part.name) + field_bytes(part.input)
    inner = (field_bytes(part.content), 0) if isinstance(part, InnerPart) else content_size(part.content)
    return text_bytes + inner[0], media_tokens + inner[1]


def _calls_bytes(calls: Iterable[ToolCall]) -> int:
    return sum(utf8_bytes(call.function.name) + utf8_bytes(call.function.arguments) for call in calls)


def _raw_message_size(raw: Raw) -> Size:
    """Size a message of any shape; one that is no object counts as text."""
    try:
        if _is_short(raw):
            return messages_size([_MESSAGE.decode(raw)])
    except ODD_SHAPE:
        pass
    try:
        message = _ODD_MESSAGE.decode(raw)
    except ODD_SHAPE:
        return field_bytes(raw), 0
    text_bytes = field_bytes(message.name) + field_bytes(message.arguments)
    calls_bytes = _raw_calls_bytes(message.tool_calls)
    contents = raw_content_size(message.content), raw_content_size(message.output)
    return _sum([*contents, (text_bytes + calls_bytes, 0)])


def _raw_part_size(raw: Raw, is_nested: bool) -> Size:
    """Size one part of any shape; the engine also takes a bare string for one."""
    try:
        part = _ODD_PART.decode(raw)
    except ODD_SHAPE:
        return field_bytes(raw), 0
    text_bytes, media_tokens = field_bytes(part.text), _MEDIA_TOKENS.get(part.type, 0)
    if part.type not in _BLOCKS:
        return text_bytes, media_tokens
    text_bytes += field_bytes(part.thinking) + field_bytes(part.name) + field_bytes(part.input)
    if is_nested:
        return text_bytes + field_bytes(part.content), media_tokens
    inner = raw_content_size(part.content, is_nested=True)
    return text_bytes + inner[0], media_tokens + inner[1]


def _raw_calls_bytes(raw: Raw) -> int:
    calls = _decoded(_TOOL_CALLS, raw)
    return field_bytes(raw) if calls is None else _calls_bytes(calls)


def _sum(sizes: Sequence[Size]) -> Size:
    return sum(size[0] for size in sizes), sum(size[1] for size in sizes)


def _is_short(raw: Raw) -> bool:
    return len(memoryview(raw)) <= _DECODED_UP_TO_BYTES


def _decoded(decoder: msgspec.json.Decoder[list[_Element]], raw: Raw) -> list[_Element] | None:
    """Return the array, or None for anything else; the first byte shows strings, raising is slow."""
    if not raw or memoryview(raw)[0] != _BRACKET:
        return None
    try:
        return decoder.decode(raw)
    except ODD_SHAPE:
        return None
