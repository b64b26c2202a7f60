"""The size of a request's input: text in bytes, token ids, and media in tokens.

Read are messages (chat, Anthropic's API), the items of `input` (responses), and `prompt` (completions) and
`input` (embeddings), which are text, token ids, or arrays of either. Token ids are counted by their commas,
not decoded: an array of a million ids would be a million objects.

Every field is measured on its own, so that an odd one costs its own exactness and no other's. The text of
the chat template is in none of them: the learned tokens per byte (`token_ratio`) take it in.
"""

from typing import Final

import msgspec
from msgspec import Raw

from extproc.request.body_facts import InputSize
from extproc.request.conversation import raw_content_size, raw_messages_size
from extproc.request.literal import ODD_SHAPE, count_byte, field_bytes, json_bytes, marked_ids, text_bytes

_ARRAY: Final = msgspec.json.Decoder(list[Raw])


def conversation_size(messages: Raw, *texts: Raw) -> InputSize:
    """Size messages or items together with the texts beside them: instructions, tools."""
    text_bytes, media_tokens = raw_messages_size(messages)
    return InputSize(text_bytes + sum(map(field_bytes, texts)), 0, media_tokens)


def opened_conversation_size(messages: Raw, opening: Raw, *texts: Raw) -> InputSize:
    """Size messages, the texts beside them, and an opening that has the shape of a message's content."""
    size = conversation_size(messages, *texts)
    opening_bytes, opening_tokens = raw_content_size(opening)
    return InputSize(size.text_bytes + opening_bytes, 0, size.media_tokens + opening_tokens)


def embedded_size(given: Raw, messages: Raw) -> InputSize:
    """Size the `input` of an embedding, or the messages that vLLM embeds where there is none."""
    return prompt_size(given) if given else conversation_size(messages)


def nothing() -> InputSize:
    """Return the size of a request that no engine computes anything for."""
    return InputSize()


def prompt_size(raw: Raw) -> InputSize:
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
