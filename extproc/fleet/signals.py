"""What one scrape of a backend says of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signals:
    """A backend's own gauges and counters at one moment, summed over its engines.

    `kv_cache_fraction` (0 to 1, mean over engines), the token counters and the size of the KV cache are None
    where the server does not report them, as are `prefix_hits_total`, the prompt tokens that were found in
    the prefix cache, and the requests of whomever that have ended, `ended_total`.
    """

    running: float
    waiting: float
    kv_cache_fraction: float | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    prefix_hits_total: float | None = None
    ended_total: float | None = None
    kv_cache_tokens: float | None = None
