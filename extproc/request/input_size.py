"""The size of a request's input: text in bytes, token ids, and media in tokens.

Read are messages (chat, Anthropic's API), the items of `input` (responses), and `prompt` (completions) and
`input` (embeddings), which are text, token ids, or arrays of either. Token ids are counted by their commas,
not decoded: an array of a million ids would be a million objects.

Every field is measured on its own, so that an odd one costs its own exactness and no other's. The text of
the chat template is in none of them: the learned tokens per byte (`token_ratio`) take it in.

A chat of text only, with every field of the usual shape, is read by a short way. It takes a third of the time
of `body`'s way, which works for every shape and gives the same facts.

Images, audio and video are a flat number of tokens each, whatever their bytes: how many tokens they become
depends on pixels and seconds, and on the model. The numbers are borrowed from the llm-d router's estimator
where it knows nothing else (llm-d/llm-d-router, dataproducer/tokenizer/mm_estimate.go).
"""

from typing import Final, Literal, TypeVar

import msgspec
from msgspec import Raw

from extproc.request.body_facts import BodyFacts, InputSize, TokenLimit
from extproc.request.literal import ODD_SHAPE, count_byte, field_bytes, json_bytes, marked_ids, text_bytes

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

_TEXT_UP_TO_BYTES: Final = 16 * 1024
"""Measured: parts of text alone are read at once in half the time; longer ones are sampled, not decoded."""

_Element = TypeVar("_Element")

_ABSENT: Final = Raw()
_BRACKET: Final = ord("[")


class _Item(msgspec.Struct, gc=False):
    """A chat message, or a responses item: a message, a function call or a function's output."""

    content: Raw = _ABSENT
    name: Raw = _ABSENT
    tool_calls: Raw = _ABSENT
    arguments: Raw = _ABSENT
    output: Raw = _ABSENT


class _Part(msgspec.Struct, gc=False):
    """A part of a message's content; all but its text are fields of Anthropic's content blocks."""

    type: str = ""
    text: Raw = _ABSENT
    thinking: Raw = _ABSENT
    name: Raw = _ABSENT
    input: Raw = _ABSENT
    content: Raw = _ABSENT


class _TextPart(msgspec.Struct, gc=False):
    """A part that is text alone: most are."""

    type: Literal["text", "input_text", "output_text"]
    text: str


class _Function(msgspec.Struct, gc=False):
    name: Raw = _ABSENT
    arguments: Raw = _ABSENT


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function


_ITEMS: Final = msgspec.json.Decoder(list[_Item])
_PARTS: Final = msgspec.json.Decoder(list[Raw])
_PART: Final = msgspec.json.Decoder(_Part)
_TEXT_PARTS: Final = msgspec.json.Decoder(list[_TextPart])
_TOOL_CALLS: Final = msgspec.json.Decoder(list[_ToolCall])


def conversation_size(messages: Raw, *texts: Raw) -> InputSize:
    """Size messages or items together with the texts beside them: instructions, tools."""
    size = messages_size(messages)
    text_bytes = sum(map(field_bytes, texts))
    if not text_bytes:
        return size
    return InputSize(size.text_bytes + text_bytes, size.exact_tokens, size.media_tokens)


def opened_conversation_size(messages: Raw, opening: Raw, *texts: Raw) -> InputSize:
    """Size messages, the texts beside them, and an opening that has the shape of a message's content."""
    size = conversation_size(messages, *texts)
    opening_bytes, opening_tokens = content_size(opening)
    return InputSize(size.text_bytes + opening_bytes, 0, size.media_tokens + opening_tokens)


def messages_size(raw: Raw) -> InputSize:
    """Size an array of messages or items; anything else counts as text."""
    items = _decoded(_ITEMS, raw)
    if items is None:
        return InputSize(field_bytes(raw))
    text_bytes, media_tokens = 0, 0
    for item in items:
        for content in (item.content, item.output):
            content_bytes, content_tokens = content_size(content)
            text_bytes += content_bytes
            media_tokens += content_tokens
        text_bytes += (
            field_bytes(item.name) + field_bytes(item.arguments) + _tool_calls_bytes(item.tool_calls)
        )
    return InputSize(text_bytes=text_bytes, media_tokens=media_tokens)


def content_size(raw: Raw, *, is_nested: bool = False) -> tuple[int, int]:
    """Count text bytes and media tokens of a string, null, or an array of parts, also nested."""
    texts = _decoded(_TEXT_PARTS, raw) if len(memoryview(raw)) <= _TEXT_UP_TO_BYTES else None
    if texts is not None:
        return sum(map(_text_part_bytes, texts)), 0
    parts = _decoded(_PARTS, raw)
    if parts is None:
        return field_bytes(raw), 0
    sizes = [_part_size(part, is_nested) for part in parts]
    return sum(part_bytes for part_bytes, _ in sizes), sum(part_tokens for _, part_tokens in sizes)


def _text_part_bytes(part: _TextPart) -> int:
    return len(part.text) if part.text.isascii() else len(part.text.encode())


def _part_size(raw: Raw, is_nested: bool) -> tuple[int, int]:
    """Count text bytes and media tokens of one part; the engine also takes a bare string for one."""
    try:
        part = _PART.decode(raw)
    except ODD_SHAPE:
        return field_bytes(raw), 0
    part_bytes, part_tokens = field_bytes(part.text), _MEDIA_TOKENS.get(part.type, 0)
    if part.type in _BLOCKS:
        part_bytes += field_bytes(part.thinking) + field_bytes(part.name) + field_bytes(part.input)
        inner = field_bytes(part.content), 0
        if not is_nested:
            inner = content_size(part.content, is_nested=True)
        return part_bytes + inner[0], part_tokens + inner[1]
    return part_bytes, part_tokens


def _tool_calls_bytes(raw: Raw) -> int:
    calls = _decoded(_TOOL_CALLS, raw)
    if calls is None:
        return field_bytes(raw)
    return sum(field_bytes(call.function.name) + field_bytes(call.function.arguments) for call in calls)


def _decoded(decoder: msgspec.json.Decoder[list[_Element]], raw: Raw) -> list[_Element] | None:
    """Return the array, or None for anything else; the first byte shows a string, since raising is slow."""
    if not raw or memoryview(raw)[0] != _BRACKET:
        return None
    try:
        return decoder.decode(raw)
    except ODD_SHAPE:
        return None


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
    cache_salt: str | None = None


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
    return BodyFacts(
        chat.model or None, chat.stream, InputSize(text_bytes), limit, True, chat.cache_salt or ""
    )


_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])


def embedded_size(given: msgspec.Raw, messages: msgspec.Raw) -> InputSize:
    """Size the `input` of an embedding, or the messages that vLLM embeds where there is none."""
    return prompt_size(given) if given else messages_size(messages)


def nothing() -> InputSize:
    """Return the size of a request that no engine computes anything for."""
    return InputSize()


def prompt_size(raw: msgspec.Raw) -> InputSize:
    """Size a prompt in any of its shapes; an odd one counts as text by its bytes."""
    json = bytes(raw)
    if json.startswith(b'"'):
        return _string_size(json)
    if not json.startswith(b"["):
        return InputSize(0 if json in {b"", b"null"} else json_bytes(json))
    if b'"' not in json and b"{" not in json:
        return InputSize(exact_tokens=_count_ids(json), prompts=max(1, count_byte(json, b"[") - 1))
    return _array_size(json)


def _string_size(literal: bytes) -> InputSize:
    exact_tokens = marked_ids(literal)
    return InputSize(exact_tokens=exact_tokens) if exact_tokens else InputSize(text_bytes(literal))


def _count_ids(json: bytes) -> int:
    """Return the numbers in an array, or in an array of arrays of which none is empty."""
    if not json.strip(b"[] \t\r\n"):
        return 0
    return count_byte(json, b",") + 1


def _array_size(json: bytes) -> InputSize:
    try:
        prompts = [bytes(prompt) for prompt in _ARRAY.decode(json)]
    except ODD_SHAPE:
        return InputSize(json_bytes(json))
    array_bytes, exact_tokens = 0, 0
    for prompt in prompts:
        if prompt.startswith(b"[") and b'"' not in prompt:
            exact_tokens += _count_ids(prompt)
        elif not prompt.startswith(b'"'):
            array_bytes += json_bytes(prompt)
        elif ids := marked_ids(prompt):
            exact_tokens += ids
        else:
            array_bytes += text_bytes(prompt)
    return InputSize(array_bytes, exact_tokens, prompts=max(1, len(prompts)))
