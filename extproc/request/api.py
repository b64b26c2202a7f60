"""The APIs that the router knows: one row each, and everything that differs between them is read from it.

They are those of vLLM's server, by all the paths that it has for them
(https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html). A new API is a row here. Its size is
read by one of the readers of `input_size` and `pairs`, or by a new one for a new shape; the simulated server
answers it in a shape that `lab.simulated_vllm.answers` has. Calls of gRPC are known by the form of their
paths. A request of any other path or method is of OTHER: it is forwarded without any claim about its input.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import Raw

from extproc.request.body_facts import InputSize
from extproc.request.conversation import AUDIO_TOKENS, FILE_TOKENS, IMAGE_TOKENS, Content, Message
from extproc.request.input_size import (
    conversation_size,
    embedded_size,
    nothing,
    opened_conversation_size,
    prompt_size,
)
from extproc.request.pairs import pairs_size, score_size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Api:
    """One API: how its requests are read, placed and answered.

    `kind` is its name in samples and metadata; its requests are made by `method` to `path`, or to one of
    `other_paths`. `read_size` is called with the raw JSON of each of `input_fields`, of which the first holds
    the prompt; where it is None, the whole body counts as text. `opening_field`, if there is one, holds text
    that the engine reads before the prompt, and is part of its prefix. `usual_types`, if there are any, are
    the types of the input fields in bodies that `usual_shape` reads. The first of `token_limit_fields` with a
    positive integer counts; without any, the server takes its `default_token_limit`, if it has one.
    `previous_field`, if there is one, names the stored response that a request goes on from. Each file
    in a form counts as `file_tokens`. A request may have many prompts if it `takes_batches`. `is_upgrade`
    marks an API whose requests have no body and become a WebSocket: the model is in the query. Those of one
    that `is_grpc` go to servers that speak gRPC, and their messages are not waited for.

    A generation can be streamed, its prefixes are cached by engines, and its TTFT can be predicted. Envoy's
    time of the first byte is its TTFT if `first_byte_is_first_token`. `has_typed_errors` where an error is
    marked as one by its outermost field, as Anthropic's clients expect. `answer_shape` names the shape of the
    simulated server's answers; it has none where that is empty.
    """

    kind: str
    method: str = "POST"
    path: str
    other_paths: tuple[str, ...] = ()
    input_fields: tuple[str, ...] = ()
    opening_field: str | None = None
    read_size: Callable[..., InputSize] | None
    usual_types: tuple[Any, ...] = ()
    token_limit_fields: tuple[str, ...] = ()
    default_token_limit: int | None = None
    previous_field: str | None = None
    file_tokens: int = FILE_TOKENS
    takes_batches: bool = False
    is_upgrade: bool = False
    is_grpc: bool = False
    is_generation: bool = False
    first_byte_is_first_token: bool = False
    has_typed_errors: bool = False
    answer_shape: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths by which it is reached."""
        return (self.path, *self.other_paths)

    @property
    def prompt_field(self) -> str:
        """The field that holds the prompt."""
        return self.input_fields[0]


CHAT: Final = Api(
    kind="chat",
    path="/v1/chat/completions",
    input_fields=("messages", "tools"),
    read_size=conversation_size,
    usual_types=(list[Message], Raw),
    token_limit_fields=("max_completion_tokens", "max_tokens"),
    is_generation=True,
    first_byte_is_first_token=True,
    answer_shape="chat",
)
COMPLETION: Final = Api(
    kind="completion",
    path="/v1/completions",
    input_fields=("prompt",),
    read_size=prompt_size,
    token_limit_fields=("max_tokens",),
    default_token_limit=16,
    takes_batches=True,
    is_generation=True,
    first_byte_is_first_token=True,
    answer_shape="completion",
)
EMBEDDING: Final = Api(
    kind="embedding",
    path="/v1/embeddings",
    input_fields=("input", "messages"),
    read_size=embedded_size,
    takes_batches=True,
    answer_shape="embedding",
)
RESPONSES: Final = Api(
    kind="responses",
    path="/v1/responses",
    input_fields=("input", "instructions", "tools"),
    usual_types=(str | list[Message], str | None, Raw),
    read_size=conversation_size,
    token_limit_fields=("max_output_tokens",),
    previous_field="previous_response_id",
    is_generation=True,
    first_byte_is_first_token=False,  # vLLM sends an event before it schedules the request
    answer_shape="responses",
)
MESSAGES: Final = Api(
    kind="messages",
    path="/v1/messages",
    input_fields=("messages", "system", "tools"),
    usual_types=(list[Message], Content, Raw),
    opening_field="system",
    read_size=opened_conversation_size,
    token_limit_fields=("max_tokens",),
    is_generation=True,
    first_byte_is_first_token=True,
    has_typed_errors=True,
    answer_shape="messages",
)
COUNT_TOKENS: Final = Api(
    kind="count_tokens",
    path="/v1/messages/count_tokens",
    read_size=nothing,
    has_typed_errors=True,
)
TOKENIZE: Final = Api(
    kind="tokenize",
    path="/tokenize",
    other_paths=("/v1/tokenize", "/detokenize", "/v1/detokenize"),
    read_size=nothing,
)
RERANK: Final = Api(
    kind="rerank",
    path="/v1/rerank",
    other_paths=("/rerank", "/v2/rerank"),
    input_fields=("documents", "query"),
    read_size=pairs_size,
    answer_shape="rerank",
)
SCORE: Final = Api(
    kind="score",
    path="/v1/score",
    other_paths=("/score",),
    input_fields=("text_2", "text_1", "documents", "queries", "items", "data_2", "data_1"),
    read_size=score_size,
)
POOLING: Final = Api(
    kind="pooling",
    path="/pooling",
    other_paths=("/v1/pooling",),
    input_fields=("input", "messages"),
    read_size=embedded_size,
)
CLASSIFY: Final = Api(
    kind="classify",
    path="/classify",
    other_paths=("/v1/classify",),
    input_fields=("input", "messages"),
    read_size=embedded_size,
)
TRANSCRIPTION: Final = Api(
    kind="transcription",
    path="/v1/audio/transcriptions",
    other_paths=("/v1/audio/translations",),
    input_fields=("prompt",),
    read_size=prompt_size,
    file_tokens=AUDIO_TOKENS,
)
SPEECH: Final = Api(
    kind="speech",
    path="/v1/audio/speech",
    input_fields=("input",),
    read_size=prompt_size,
)
IMAGES: Final = Api(
    kind="images",
    path="/v1/images/generations",
    other_paths=("/v1/images/edits", "/v1/images/variations"),
    input_fields=("prompt",),
    read_size=prompt_size,
    file_tokens=IMAGE_TOKENS,
)
REALTIME: Final = Api(
    kind="realtime",
    method="GET",
    path="/v1/realtime",
    read_size=nothing,
    is_upgrade=True,
)
MODELS: Final = Api(
    kind="models",
    method="GET",
    path="/v1/models",
    read_size=nothing,
)
GRPC: Final = Api(kind="grpc", path="", read_size=nothing, is_grpc=True)
OTHER: Final = Api(kind="other", path="", read_size=None)

APIS: Final = (
    CHAT,
    COMPLETION,
    EMBEDDING,
    RESPONSES,
    MESSAGES,
    COUNT_TOKENS,
    TOKENIZE,
    RERANK,
    SCORE,
    POOLING,
    CLASSIFY,
    TRANSCRIPTION,
    SPEECH,
    IMAGES,
    REALTIME,
    MODELS,
)
APIS_BY_PATH: Final[Mapping[str, Api]] = {path: api for api in APIS for path in api.paths}
APIS_BY_KIND: Final[Mapping[str, Api]] = {api.kind: api for api in (*APIS, GRPC)}

_GRPC_PATH: Final = re.compile(r"/([a-z_]\w*\.)+[A-Z]\w*/[A-Z]\w*", re.ASCII)
"""/PACKAGE.SERVICE/METHOD (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)."""


def api_at(path: str, apis: Mapping[str, Api] = APIS_BY_PATH) -> Api:
    """Return the API that a path, without its query, is of."""
    api = apis.get(path)
    if api is not None:
        return api
    return GRPC if _GRPC_PATH.fullmatch(path) else OTHER
