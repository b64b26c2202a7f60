"""What one scrape of a backend says of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signals:
    """A backend's own gauges and counters at one moment, summed over its engines.

    `kv_cache_fraction` (0 to 1, mean over engines) and the token counters are None where the server does
    not report them.
    """

    running: float
    waiting: float
    kv_cache_fraction: float | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
