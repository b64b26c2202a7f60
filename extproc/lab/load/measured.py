"""A request that was sent, and its sample: what was known before, joined with how it went."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from extproc.fleet.view import CandidateFacts
from extproc.lab.load.completion import Reply
from extproc.outcomes.facts import Sample
from extproc.request.api import COMPLETION

BACKEND_HEADER, LAYER_HEADER = "x-extproc-backend", "x-extproc-layer"
_REFUSED = "reject"


@dataclass(frozen=True, slots=True)
class Sent:
    """One request; `at_s` is a unix time, the same for the two of a twin arrival."""

    at_s: float
    model: str
    prompt_tokens: int
    output_tokens: int
    body_bytes: int


class Place(Protocol):
    """Where one request is sent."""

    @property
    def url(self) -> str:
        """The server's URL, without a path."""

    def end(self, sent: Sent, reply: Reply) -> Sample | None:
        """End the request, however it ended; returns its sample, None if its backend is not known."""


class Target(Protocol):
    """A target of load; `running` is how many requests it was last seen to work on."""

    model: str
    max_model_len: int | None
    requests_per_arrival: int

    @property
    def running(self) -> float:
        """The sum over its backends."""

    def place(self) -> Sequence[Place]:
        """Return the places of an arrival's requests, reserved at once."""


def is_refused(reply: Reply) -> bool:
    """Return whether admission control refused the request: no failure of a backend, and no sample."""
    return reply.headers.get(LAYER_HEADER) == _REFUSED


def measured_sample(
    known: CandidateFacts, backend: str, layer: str, reason: str, sent: Sent, reply: Reply
) -> Sample:
    """Return the sample that the sidecar would have recorded, with what only a client can read."""
    prompt_tokens = reply.usage.prompt_tokens
    return Sample(
        **msgspec.structs.asdict(known),
        at_s=sent.at_s,
        backend=backend,
        model=sent.model,
        kind=COMPLETION.kind,
        is_stream=True,
        layer=layer,
        reason=reason,
        input_tokens=float(sent.prompt_tokens if prompt_tokens is None else prompt_tokens),
        text_bytes=0,  # a prompt of token ids has none
        body_bytes=sent.body_bytes,
        token_limit=sent.output_tokens,
        status=reply.status,
        attempts=1,
        failure=reply.failure.value if reply.failure else None,
        is_clean=reply.failure is None and reply.status == 200 and reply.ttft_s is not None,
        ttft_s=reply.ttft_s,
        duration_s=reply.duration_s,
        response_bytes=reply.response_bytes,
        output_tokens=reply.usage.output_tokens,
        cached_tokens=reply.usage.cached_tokens,
    )
