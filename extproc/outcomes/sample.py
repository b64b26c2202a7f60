"""One training sample: the facts of a decision together with what became of the request.

The facts ride through Envoy as dynamic metadata and come back in the access-log entry, so a sample is
complete in itself. The fields are the columns of the sample store.
"""

from extproc.outcomes.facts import Facts


class Sample(Facts, frozen=True, kw_only=True, omit_defaults=False):
    """The facts of a decision, and how the request went.

    Times are seconds, `at_s` is a unix timestamp; `ttft_s` is None where the response is no stream whose
    first byte is its first token. `is_clean` says that the request ran undisturbed on the chosen backend:
    first attempt, status 200, complete, a stream. `output_tokens` and `cached_tokens` (input tokens that the
    server found in its prefix cache) are the server's own numbers, None where they were not read.
    """

    at_s: float
    status: int
    attempts: int
    failure: str | None
    is_clean: bool
    ttft_s: float | None
    duration_s: float
    response_bytes: int
    output_tokens: int | None = None
    cached_tokens: int | None = None
