"""What was known and decided when a request was placed: it rides through Envoy, back with the outcome.

Envoy keeps it as dynamic metadata: backend, layer and reason as values of their own, which Envoy's own
access log and headers can use, and all of it as one JSON text, because Envoy, too, pays for each value.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec

BACKEND_KEY = "backend"
LAYER_KEY = "layer"
REASON_KEY = "reason"
FACTS_KEY = "facts"


Word = Annotated[str, msgspec.Meta(max_length=64)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Requests = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision's features; names and units are those of `Sample`. What is not known is None.

    `expected_cached_tokens` of `input_tokens` were expected in the backend's prefix cache. `model_log_ttft`
    is what the model said, uncorrected, wherever it was asked about the chosen backend.
    """

    backend: Name
    layer: Word
    reason: Word
    zone: Word
    kind: Word
    is_stream: bool
    num_running: Requests
    load: Requests
    num_waiting: Requests
    kv_cache_fraction: float
    own: float
    foreign: float
    input_tokens: float
    text_bytes: int
    body_bytes: int
    priority: int = 0
    scrape_age_s: float | None = None
    model: Name | None = None
    token_limit: int | None = None
    expected_cached_tokens: float = 0.0
    model_version: Name | None = None
    model_log_ttft: float | None = None
    predicted_ttft_s: float | None = None


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Facts)


def to_metadata(facts: Facts) -> dict[str, str]:
    """The metadata that carries `facts`."""
    return {
        BACKEND_KEY: facts.backend,
        LAYER_KEY: facts.layer,
        REASON_KEY: facts.reason,
        FACTS_KEY: _ENCODER.encode(facts).decode(),
    }


def from_metadata(metadata: Mapping[str, str]) -> Facts | None:
    """The facts that metadata carries; None where it carries none."""
    try:
        return _DECODER.decode(metadata.get(FACTS_KEY, ""))
    except (msgspec.MsgspecError, RecursionError):
        return None
