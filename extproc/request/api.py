"""The APIs that the router knows: one row each, and everything that differs between them is read from it.

They are those of vLLM's OpenAI-compatible server
(https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html). A new API is a row here. Its size is
read by one of the readers of `input_size`, or by a new one for a new shape; the simulated server
answers it in a shape that `lab.simulated_vllm.answers` has. A request of any other path or method is of
OTHER: it is forwarded without any claim about its input.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from extproc.request.body_facts import BodyFacts, InputSize
from extproc.request.input_size import conversation_size, embedded_size, prompt_size, read_plain_chat


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Api:
    """One API: how its requests are read, placed and answered.

    `kind` is its name in samples and metadata; requests are POSTed to `path`. `read_size` is called with the
    raw JSON of each of `input_fields`, of which the first holds the prompt; where it is None, the bytes of
    the whole body count as text. `read_plain`, if there is one, reads a body of the usual shape faster, and
    returns None for others. The first of `token_limit_fields` with a positive integer counts; without any,
    the server takes its `default_token_limit`, if it has one. A request may have many prompts if it
    `takes_batches`.

    A generation can be streamed, its prefixes are cached by engines, and its TTFT can be predicted. Envoy's
    time of the first byte is its TTFT if `first_byte_is_first_token`. `answer_shape` names the shape of the
    simulated server's answers.
    """

    kind: str
    path: str
    input_fields: tuple[str, ...]
    read_size: Callable[..., InputSize] | None
    read_plain: Callable[[bytes], BodyFacts | None] | None = None
    token_limit_fields: tuple[str, ...]
    default_token_limit: int | None = None
    takes_batches: bool = False
    is_generation: bool
    first_byte_is_first_token: bool
    answer_shape: str

    @property
    def prompt_field(self) -> str:
        """The field that holds the prompt."""
        return self.input_fields[0]


CHAT: Final = Api(
    kind="chat",
    path="/v1/chat/completions",
    input_fields=("messages", "tools"),
    read_size=conversation_size,
    read_plain=read_plain_chat,
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
    token_limit_fields=(),
    takes_batches=True,
    is_generation=False,
    first_byte_is_first_token=False,
    answer_shape="embedding",
)
RESPONSES: Final = Api(
    kind="responses",
    path="/v1/responses",
    input_fields=("input", "instructions", "tools"),
    read_size=conversation_size,
    token_limit_fields=("max_output_tokens",),
    is_generation=True,
    first_byte_is_first_token=False,  # vLLM sends an event before it schedules the request
    answer_shape="responses",
)
OTHER: Final = Api(
    kind="other",
    path="",
    input_fields=(),
    read_size=None,
    token_limit_fields=(),
    is_generation=False,
    first_byte_is_first_token=False,
    answer_shape="",
)

APIS: Final = (CHAT, COMPLETION, EMBEDDING, RESPONSES)
APIS_BY_PATH: Final[Mapping[str, Api]] = {api.path: api for api in APIS}
APIS_BY_KIND: Final[Mapping[str, Api]] = {api.kind: api for api in APIS}
