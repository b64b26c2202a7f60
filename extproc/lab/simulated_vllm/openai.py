"""The fields that the simulated vLLM reads from an OpenAI-style request body: how much work it is, or why
it is refused.

Nothing is tokenized: a token is four bytes of text, and token ids are counted as they are. Several prompts or
inputs in one request are worked on as one. Error bodies, types and codes are those of vLLM's server.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any

import msgspec

from extproc.lab.engine.engine_profile import DEFAULT_BLOCK_SIZE
from extproc.request.api import Api

BYTES_PER_TOKEN = 4
DEFAULT_OUTPUT_TOKENS = 64
"""Where neither the client nor the API sets a limit."""
_Prompt = str | list[Any] | None
_INPUT_TYPES: dict[str, Any] = {"messages": list[dict[str, Any]] | None, "instructions": str | None}
"""By field; one that is not here may have any shape of a prompt."""


@dataclass(frozen=True, slots=True)
class Work:
    """One request as the engine sees it; `inputs` is how many embeddings are asked for.

    `content` are the full blocks of its prompt, as `Engine.submit` takes them.
    """

    api: Api
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
        """Return the answer in vLLM's form."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.status}
        return msgspec.json.encode({"error": error})


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


@cache
def _decoder(api: Api) -> msgspec.json.Decoder[Any]:
    """Return a decoder of an API's bodies: of `_Body` with the fields of the API's row."""
    inputs = [(name, _INPUT_TYPES.get(name, _Prompt), None) for name in api.input_fields]
    limits = [(name, int | None, None) for name in api.token_limit_fields]
    return msgspec.json.Decoder(msgspec.defstruct("Body", inputs + limits, bases=(_Body,)))


def read_work(api: Api, body: bytes, models: tuple[str, ...], max_model_len: int) -> Work | Refusal:
    """Read the work that a request body asks for; without a model it is for the first one, as in vLLM."""
    try:
        asked = _decoder(api).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Refusal(400, "Bad Request", str(error))
    if asked.model is not None and asked.model not in models:
        return Refusal(404, "NotFoundError", f"The model `{asked.model}` does not exist.", "model")
    given, *others = [getattr(asked, name) for name in api.input_fields]
    if given is None:
        return Refusal(400, "Bad Request", f"Field required: {api.prompt_field}", api.prompt_field)
    prompt = [*others, given]
    prompt_tokens = count_tokens(prompt)
    output_tokens = _output_tokens(api, asked, prompt_tokens, max_model_len)
    if isinstance(output_tokens, Refusal):
        return output_tokens
    return Work(
        api=api,
        model=asked.model or models[0],
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        inputs=len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1,
        is_stream=bool(asked.stream) and api.is_generation,
        includes_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        content=content_blocks(prompt),
    )


def count_tokens(value: object) -> int:
    """Return the tokens of a prompt, messages or inputs, at least 1: bytes of text / 4, token ids exactly.

    In an object only `text` and `content` count.
    """
    text_bytes, token_ids = 0, 0
    for piece in _pieces(value):
        if isinstance(piece, bytes):
            text_bytes += len(piece)
        else:
            token_ids += 1
    return max(1, -(-text_bytes // BYTES_PER_TOKEN) + token_ids)


def content_blocks(value: object) -> tuple[int, ...]:
    """Return a number for each full block of a prompt, which stands for the block and everything before it.

    A token id is worth as many bytes as a token of text.
    """
    text_bytes = b"".join(
        piece if isinstance(piece, bytes) else (piece % (1 << 32)).to_bytes(BYTES_PER_TOKEN, "little")
        for piece in _pieces(value)
    )
    block_bytes = BYTES_PER_TOKEN * DEFAULT_BLOCK_SIZE
    known = blake2b(digest_size=8)
    blocks = []
    for end in range(block_bytes, len(text_bytes) + 1, block_bytes):
        known.update(text_bytes[end - block_bytes : end])
        blocks.append(int.from_bytes(known.digest()))
    return tuple(blocks)


def _pieces(value: object) -> Iterator[bytes | int]:
    """Yield the texts and the token ids of a prompt, of messages or of inputs, in their order."""
    pending = [value]
    while pending:
        match pending.pop():
            case str(text):
                yield text.encode()
            case int(token_id):
                yield token_id
            case list(items):
                pending += reversed(items)
            case dict(item):
                pending += (item.get("content"), item.get("text"))


def _output_tokens(api: Api, asked: _Body, prompt_tokens: int, max_model_len: int) -> int | Refusal:
    """Refuse an explicit limit that does not fit, and cut a default one to what fits, as vLLM does."""
    room = max_model_len - prompt_tokens
    context = f"This model's maximum context length is {max_model_len} tokens. However,"
    if room < (1 if api.is_generation else 0):
        message = f"{context} your request has {prompt_tokens} input tokens."
        return Refusal(400, "BadRequestError", message, "input_tokens")
    if not api.is_generation:
        return 0
    limits: list[int | None] = [getattr(asked, name) for name in api.token_limit_fields]
    limit = next((limit for limit in limits if limit is not None), None)
    if limit is None:
        return min(api.default_token_limit or DEFAULT_OUTPUT_TOKENS, room)
    if limit < 1:
        return Refusal(400, "BadRequestError", f"max_tokens must be at least 1, got {limit}.", "max_tokens")
    if limit > room:
        message = f"{context} you requested {limit} output tokens and your prompt has {prompt_tokens}."
        return Refusal(400, "BadRequestError", message, "max_tokens")
    return limit
