"""What the simulated vLLM reads from an OpenAI-style request body: how much work it is, or why it is refused.

Nothing is tokenized: a token is four bytes of text, and token ids are counted as they are. Several prompts or
inputs in one request are worked on as one. Error bodies, types and codes are those of vLLM's server.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from extproc.lab.engine.engine_limits import DEFAULT_BLOCK_SIZE
from extproc.request.request import RequestKind

BYTES_PER_TOKEN = 4
DEFAULT_OUTPUT_TOKENS = {RequestKind.COMPLETION: 16, RequestKind.CHAT: 64, RequestKind.RESPONSES: 64}
INPUT_FIELDS = {
    RequestKind.CHAT: "messages",
    RequestKind.COMPLETION: "prompt",
    RequestKind.EMBEDDING: "input",
    RequestKind.RESPONSES: "input",
}


@dataclass(frozen=True, slots=True)
class Work:
    """One request as the engine sees it; `inputs` is how many embeddings are asked for.

    `content` are the full blocks of its prompt, as `Engine.submit` takes them.
    """

    kind: RequestKind
    model: str
    prompt_tokens: int
    output_tokens: int
    inputs: int
    is_stream: bool
    includes_usage: bool
    content: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer."""

    status: int
    type: str
    message: str
    param: str | None = None

    def body(self) -> bytes:
        """The answer in vLLM's form."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.status}
        return msgspec.json.encode({"error": error})


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[Any] | None = None
    input: str | list[Any] | None = None
    instructions: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


_decoder = msgspec.json.Decoder(_Body)


def read_work(kind: RequestKind, body: bytes, models: tuple[str, ...], max_model_len: int) -> Work | Refusal:
    """The work that a request body asks for; without a model it is for the first one, as in vLLM."""
    try:
        asked = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Refusal(400, "Bad Request", str(error))
    if asked.model is not None and asked.model not in models:
        return Refusal(404, "NotFoundError", f"The model `{asked.model}` does not exist.", "model")
    given = getattr(asked, INPUT_FIELDS[kind])
    if given is None:
        return Refusal(400, "Bad Request", f"Field required: {INPUT_FIELDS[kind]}", INPUT_FIELDS[kind])
    prompt_tokens = count_tokens([given, asked.instructions or ""])
    output_tokens = _output_tokens(kind, asked, prompt_tokens, max_model_len)
    if isinstance(output_tokens, Refusal):
        return output_tokens
    return Work(
        kind=kind,
        model=asked.model or models[0],
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        inputs=len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1,
        is_stream=bool(asked.stream) and kind is not RequestKind.EMBEDDING,
        includes_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        content=content_blocks([asked.instructions or "", given]),
    )


def count_tokens(value: object) -> int:
    """Tokens of a prompt, of messages or of inputs, at least 1: text in bytes / 4, token ids exactly.

    Of an object only `text` and `content` count.
    """
    text_bytes, token_ids = 0, 0
    pending = [value]
    while pending:
        match pending.pop():
            case str(text):
                text_bytes += len(text.encode())
            case int():
                token_ids += 1
            case list(items):
                pending += items
            case dict(item):
                pending += (item.get("text"), item.get("content"))
    return max(1, -(-text_bytes // BYTES_PER_TOKEN) + token_ids)


def content_blocks(value: object) -> tuple[int, ...]:
    """A number for each full block of a prompt, which stands for the block and everything before it.

    A token id is worth as many bytes as a token of text.
    """
    pieces: list[bytes] = []
    pending = [value]
    while pending:
        match pending.pop():
            case str(text):
                pieces.append(text.encode())
            case int(token_id):
                pieces.append((token_id % (1 << 32)).to_bytes(BYTES_PER_TOKEN, "little"))
            case list(items):
                pending += reversed(items)
            case dict(item):
                pending += (item.get("content"), item.get("text"))
    text_bytes = b"".join(pieces)
    block_bytes = BYTES_PER_TOKEN * DEFAULT_BLOCK_SIZE
    known = blake2b(digest_size=8)
    blocks = []
    for end in range(block_bytes, len(text_bytes) + 1, block_bytes):
        known.update(text_bytes[end - block_bytes : end])
        blocks.append(int.from_bytes(known.digest()))
    return tuple(blocks)


def _output_tokens(kind: RequestKind, asked: _Body, prompt_tokens: int, max_model_len: int) -> int | Refusal:
    """Like vLLM: an explicit limit that does not fit is refused, a default one is cut to what fits."""
    is_embedding = kind is RequestKind.EMBEDDING
    room = max_model_len - prompt_tokens
    context = f"This model's maximum context length is {max_model_len} tokens. However,"
    if room < (0 if is_embedding else 1):
        message = f"{context} your request has {prompt_tokens} input tokens."
        return Refusal(400, "BadRequestError", message, "input_tokens")
    if is_embedding:
        return 0
    limits = (asked.max_completion_tokens, asked.max_output_tokens, asked.max_tokens)
    limit = next((limit for limit in limits if limit is not None), None)
    if limit is None:
        return min(DEFAULT_OUTPUT_TOKENS[kind], room)
    if limit < 1:
        return Refusal(400, "BadRequestError", f"max_tokens must be at least 1, got {limit}.", "max_tokens")
    if limit > room:
        message = f"{context} you requested {limit} output tokens and your prompt has {prompt_tokens}."
        return Refusal(400, "BadRequestError", message, "max_tokens")
    return limit
