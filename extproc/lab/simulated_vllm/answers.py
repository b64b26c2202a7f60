"""The bodies and SSE events that the simulated vLLM answers with, shaped like vLLM's, one class per shape.

The row of an API names the shape of its answers (`request.api`).

Every token reads " token", so most events of a stream are the same bytes. Every answer ends at its token
limit, which vLLM calls "length".
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import msgspec

from extproc.lab.simulated_vllm.openai import Work

TOKEN_TEXT = " token"
EMBEDDING = (0.0, 0.25, 0.5, 1.0)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class VllmAnswer(ABC):
    """The properties of an answer when its request arrives; `created_s` is a unix timestamp.

    A stream is `opening`, sent at once and before the request is scheduled; `first`, sent with the first
    token; `tokens` as often as needed; `closing`.
    """

    key: str
    created_s: int
    work: Work

    @abstractmethod
    def body(self) -> bytes:
        """Return the whole answer to a request that is no stream."""

    def opening(self) -> bytes:
        """Return the events before the request is scheduled."""
        return b""

    def first(self) -> bytes:
        """Return the events that precede the first token."""
        return b""

    def tokens(self, number: int, is_last: bool = False) -> bytes:
        """Return one event with this many tokens."""
        raise AssertionError(f"{self.work.api.kind} is never streamed")

    def closing(self) -> bytes:
        """Return the events after the last token."""
        return b""

    def usage(self) -> Json:
        """Return token counts, as every API but Responses names them."""
        prompt, output = self.work.prompt_tokens, self.work.output_tokens
        return {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}

    @property
    def text(self) -> str:
        """All that the model says."""
        return TOKEN_TEXT * self.work.output_tokens


class CompletionAnswer(VllmAnswer):
    """`/v1/completions`."""

    id_prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def body(self) -> bytes:
        """Return one choice with all the text."""
        choice = self._choice(self._whole(self.text)) | {"finish_reason": "length"}
        return msgspec.json.encode(self._head(self.whole) | {"choices": [choice], "usage": self.usage()})

    def tokens(self, number: int, is_last: bool = False) -> bytes:
        """Return a piece of the text."""
        return self._event(self._piece(TOKEN_TEXT * number), is_last)

    def closing(self) -> bytes:
        """Return usage, if the client asked for it, and the end mark."""
        if not self.work.includes_usage:
            return b"data: [DONE]\n\n"
        return _event(self._head(self.chunk) | {"choices": [], "usage": self.usage()}) + b"data: [DONE]\n\n"

    def _event(self, piece: Json, is_last: bool) -> bytes:
        ending: Json = {"finish_reason": "length", "stop_reason": None}
        choice = self._choice(piece) | (ending if is_last else {"finish_reason": None})
        return _event(self._head(self.chunk) | {"choices": [choice]})

    def _whole(self, text: str) -> Json:
        return {"text": text}

    _piece = _whole

    def _choice(self, piece: Json) -> Json:
        return {"index": 0, **piece, "logprobs": None}

    def _head(self, kind: str) -> Json:
        head = {"id": f"{self.id_prefix}-{self.key}", "object": kind}
        return head | {"created": self.created_s, "model": self.work.model}


class ChatAnswer(CompletionAnswer):
    """`/v1/chat/completions`; a stream has one more event than tokens, for the role."""

    id_prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def first(self) -> bytes:
        """Return the role."""
        return self._event({"delta": {"role": "assistant", "content": ""}}, is_last=False)

    def _whole(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text}}

    def _piece(self, text: str) -> Json:
        return {"delta": {"content": text}}


class ResponsesAnswer(VllmAnswer):
    """`/v1/responses`, reduced to a minimum: as in vLLM, two events come before any token."""

    def body(self) -> bytes:
        """Return a response that ran into its limit."""
        return msgspec.json.encode(self._done())

    def opening(self) -> bytes:
        """Return a response without output."""
        started = self._head() | {"status": "in_progress", "output": [], "usage": None}
        return b"".join(
            _event({"type": name, "response": started}, name)
            for name in ("response.created", "response.in_progress")
        )

    def tokens(self, number: int, is_last: bool = False) -> bytes:
        """Return a piece of the message."""
        name = "response.output_text.delta"
        item = {"item_id": f"msg_{self.key}", "output_index": 0, "content_index": 0}
        return _event({"type": name, **item, "delta": TOKEN_TEXT * number, "logprobs": []}, name)

    def closing(self) -> bytes:
        """Return the whole response again; this API has no end mark."""
        name = "response.completed"
        return _event({"type": name, "response": self._done()}, name)

    def _head(self) -> Json:
        head = {"id": f"resp_{self.key}", "object": "response"}
        return head | {"created_at": self.created_s, "model": self.work.model}

    def _done(self) -> Json:
        text = {"type": "output_text", "text": self.text, "annotations": []}
        message = {"id": f"msg_{self.key}", "type": "message", "role": "assistant", "status": "completed"}
        prompt, output = self.work.prompt_tokens, self.work.output_tokens
        return self._head() | {
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [message | {"content": [text]}],
            "usage": {"input_tokens": prompt, "output_tokens": output, "total_tokens": prompt + output},
        }


class EmbeddingAnswer(VllmAnswer):
    """`/v1/embeddings`: one short constant vector per input; never a stream."""

    def body(self) -> bytes:
        """Return a list of vectors."""
        vectors = [
            {"index": i, "object": "embedding", "embedding": EMBEDDING} for i in range(self.work.inputs)
        ]
        head = {"id": f"embd-{self.key}", "object": "list", "created": self.created_s}
        return msgspec.json.encode(head | {"model": self.work.model, "data": vectors, "usage": self.usage()})


class RerankAnswer(VllmAnswer):
    """`/v1/rerank`: the documents in their order, the first one the best; never a stream."""

    def body(self) -> bytes:
        """Return a score for each document."""
        results = [{"index": i, "relevance_score": 1 / (1 + i)} for i in range(self.work.inputs)]
        head = {"id": f"rerank-{self.key}", "model": self.work.model}
        return msgspec.json.encode(head | {"results": results, "usage": self.usage()})


class MessagesAnswer(VllmAnswer):
    """`/v1/messages`, Anthropic's API: as in vLLM, nothing is sent before the first token."""

    def body(self) -> bytes:
        """Return one message with one block of text."""
        message = self._message([{"type": "text", "text": self.text}], "max_tokens")
        return msgspec.json.encode(message)

    def first(self) -> bytes:
        """Return a message without content, and a block without text."""
        block = {"type": "text", "text": ""}
        return _event(
            {"type": "message_start", "message": self._message([], None)}, "message_start"
        ) + _event({"type": "content_block_start", "index": 0, "content_block": block}, "content_block_start")

    def tokens(self, number: int, is_last: bool = False) -> bytes:
        """Return a piece of the block."""
        delta = {"type": "text_delta", "text": TOKEN_TEXT * number}
        return _event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")

    def closing(self) -> bytes:
        """Return the reason of the end."""
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        return b"".join(
            (
                _event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
                _event({"type": "message_delta", "delta": delta, "usage": self.usage()}, "message_delta"),
                _event({"type": "message_stop"}, "message_stop"),
            )
        )

    def usage(self) -> Json:
        """Return token counts, as Anthropic's API names them."""
        return {"input_tokens": self.work.prompt_tokens, "output_tokens": self.work.output_tokens}

    def _message(self, content: list[Json], stop_reason: str | None) -> Json:
        head = {"id": f"msg_{self.key}", "type": "message", "role": "assistant", "model": self.work.model}
        usage = self.usage() if content else self.usage() | {"output_tokens": 0}
        return head | {"content": content, "stop_reason": stop_reason, "stop_sequence": None, "usage": usage}


_ANSWERS: dict[str, type[VllmAnswer]] = {
    "chat": ChatAnswer,
    "completion": CompletionAnswer,
    "embedding": EmbeddingAnswer,
    "responses": ResponsesAnswer,
    "messages": MessagesAnswer,
    "rerank": RerankAnswer,
}


def answer_to(work: Work, key: str, created_s: int) -> VllmAnswer:
    """Return the answer to a request, in the shape of its API."""
    return _ANSWERS[work.api.answer_shape](key, created_s, work)


def _event(data: Json, name: str | None = None) -> bytes:
    prefix = f"event: {name}\n".encode() if name else b""
    return prefix + b"data: " + msgspec.json.encode(data) + b"\n\n"
