"""One training sample: a decision's features together with what became of the request.

The features ride through Envoy as dynamic metadata and come back in the access-log entry, so a sample is
complete in itself. Field order here is column order in the sample store.
"""

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """What was known when a request was placed, and how it went.

    Times are seconds, `at_s` is a unix timestamp; `ttft_s` is None where the response is no stream whose
    first byte is its first token; `predicted_ttft_s` is None unless the model was asked about that backend.
    `is_clean` says that the request ran undisturbed on the chosen backend: first attempt, status 200,
    complete, a stream. `output_tokens` and `cached_tokens` (input tokens that the server found in its prefix
    cache) are what the server said, None where nobody has read it.
    """

    at_s: float
    backend: str
    model: str
    kind: str
    is_stream: bool
    layer: str
    reason: str
    model_version: str | None
    predicted_ttft_s: float | None
    zone: str
    num_running: float
    load: float
    num_waiting: float
    kv_cache_fraction: float
    input_tokens: float
    own: float
    foreign: float
    scrape_age_s: float | None
    text_bytes: int
    body_bytes: int
    token_limit: int | None
    priority: int
    status: int
    attempts: int
    failure: str | None
    is_clean: bool
    ttft_s: float | None
    duration_s: float
    response_bytes: int
    output_tokens: int | None = None
    cached_tokens: int | None = None
