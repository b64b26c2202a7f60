"""The facts of a decision, and the training sample that they become once the outcome is known.

The facts ride through Envoy and come back in the access-log entry, so a sample is complete in itself.
Envoy keeps them as dynamic metadata: backend, layer and reason as values of their own, which Envoy's own
access log and headers can use, and all of it as one JSON text, because Envoy, too, pays for each value.
"""

from collections.abc import Mapping
from math import log
from typing import Annotated, TypeVar

import msgspec

from extproc.fleet.prediction_record import PredictedOutcome
from extproc.fleet.view import CandidateFacts, Tokens, Word
from extproc.request.body_facts import TokenLimit

BACKEND_KEY = "backend"
LAYER_KEY = "layer"
REASON_KEY = "reason"
PREFILLER_KEY = "prefiller"
FACTS_KEY = "facts"

_Read = TypeVar("_Read")

Name = Annotated[str, msgspec.Meta(max_length=256)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
Priority = Annotated[int, msgspec.Meta(ge=-(1 << 40), le=1 << 40)]
PredictedSeconds = Annotated[float, msgspec.Meta(ge=0, le=1e45)]


class Facts(CandidateFacts, frozen=True, omit_defaults=True, kw_only=True):
    """A decision and all that it was made from. Every number is bounded: one entry spoils no sum for long.

    `model` is empty where the request names none. `input_tokens` is the estimate that the policy used, of
    which `expected_cached_tokens` were expected in the backend's prefix cache. `predicted_ttft_s` is the
    estimate as the model `model_version` corrects it, wherever it was asked about the chosen backend.
    """

    backend: Name
    layer: Word
    reason: Word
    kind: Word
    is_stream: bool
    input_tokens: Tokens
    text_bytes: Bytes
    body_bytes: Bytes
    priority: Priority = 0
    model: Name = ""
    token_limit: TokenLimit | None = None
    model_version: Name | None = None
    predicted_ttft_s: PredictedSeconds | None = None

    @property
    def new_tokens(self) -> float:
        """The input that was not expected in the backend's prefix cache."""
        tokens = self.input_tokens - self.expected_cached_tokens
        return tokens if tokens > 0.0 else 0.0


class PlacedFacts(Facts, frozen=True, kw_only=True):
    """The facts as they travel: `booking` is the number under which the router has the request.

    Where Envoy reads `expects_headers`, it waits for the headers of a stream for a minute only. `prefiller`
    is the backend that computes the prompt before, empty where the chosen one does.
    """

    booking: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    expects_headers: bool = False
    prefiller: Name = ""


TRAVELLING = PlacedFacts.__struct_fields__[len(Facts.__struct_fields__) :]
"""The fields that are of use to the router alone, and are not recorded."""

_ENCODER = msgspec.json.Encoder()


def to_metadata(facts: PlacedFacts) -> dict[str, str]:
    """Return the metadata that carries `facts`; they are last, since nothing else is new in each request."""
    metadata = {BACKEND_KEY: facts.backend, LAYER_KEY: facts.layer, REASON_KEY: facts.reason}
    if facts.prefiller:
        metadata[PREFILLER_KEY] = facts.prefiller
    metadata[FACTS_KEY] = _ENCODER.encode(facts).decode()
    return metadata


def from_metadata(metadata: Mapping[str, str]) -> PlacedFacts | None:
    """Return the facts that metadata carries; None where it carries none."""
    return _decoded(_FACTS, metadata)


def sample_from(metadata: Mapping[str, str]) -> "Sample | None":
    """Return the sample of the facts that metadata carries, for its outcome to be filled in.

    Metadata about the outcome is overwritten later.
    """
    return _decoded(_SAMPLES, metadata)


def _decoded(decoder: msgspec.json.Decoder[_Read], metadata: Mapping[str, str]) -> _Read | None:
    try:
        return decoder.decode(metadata.get(FACTS_KEY, ""))
    except (msgspec.MsgspecError, RecursionError):
        return None


class Sample(PlacedFacts, frozen=True, kw_only=True, omit_defaults=False):
    """The facts of a decision, and how the request went: the columns of the sample store.

    It is read from the text that carries the facts, and `read_outcome` fills the rest in, once: to make it of
    other objects costs three times as much.

    Times are seconds, `at_s` is a unix timestamp; `ttft_s` is None where the response is no stream whose
    first byte is its first token. `duration_s` is from when the request was sent to the server until its
    response ended there, or, where that is not known, that of the whole exchange. `is_clean` says that the
    request ran undisturbed on the chosen backend, and on no other: first attempt, status 200, complete, a
    stream.
    `output_tokens` and `cached_tokens` (input tokens that the server found in its prefix cache) are the
    server's own numbers, None where they were not read.
    """

    at_s: float = 0.0
    status: int = 0
    attempts: int = 1
    failure: str | None = None
    is_clean: bool = False
    ttft_s: float | None = None
    duration_s: float = 0.0
    response_bytes: int = 0
    output_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def computed_tokens(self) -> float:
        """The input that the server had to compute: by its own number where that was read."""
        if self.cached_tokens is None:
            return self.new_tokens
        return max(0.0, self.input_tokens - self.cached_tokens)


_FACTS = msgspec.json.Decoder(PlacedFacts)
_SAMPLES = msgspec.json.Decoder(Sample)


def predicted_outcome(sample: Sample) -> PredictedOutcome | None:
    """Return what the model and the plain estimate predicted of a request, and what became of it.

    None where either of the three is not known, or is no time that could be: the facts came from outside.
    """
    corrected_s, plain_s, ttft_s = sample.predicted_ttft_s, sample.estimate.ttft_s, sample.ttft_s
    if corrected_s is None or ttft_s is None or not (corrected_s > 0 and plain_s > 0 and ttft_s > 0):
        return None
    return PredictedOutcome(
        sample.backend, sample.at_s, sample.new_tokens, log(ttft_s), log(corrected_s), log(plain_s)
    )
