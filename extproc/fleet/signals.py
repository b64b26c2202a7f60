"""The gauges and counters of one scrape, the load arithmetic on them, and how often a backend is scraped."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from extproc.fleet.adapter_places import AdaptersSeen
from extproc.fleet.bounds import Seconds


@dataclass(frozen=True, slots=True)
class Signals:
    """A backend's own gauges and counters at one moment, summed over its engines.

    `kv_cache_fraction` (0 to 1, mean over engines), the token counters and the size of the KV cache are None
    where the server does not report them, as are `prefix_hits_total`, the prompt tokens that were found in
    the prefix cache, and the requests of whomever that have ended, `ended_total`. A server that `is_asleep`
    (vLLM's sleep mode) answers nothing until it is woken up, and has lost its prefix cache.
    """

    running: float
    waiting: float
    kv_cache_fraction: float | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    prefix_hits_total: float | None = None
    ended_total: float | None = None
    kv_cache_tokens: float | None = None
    is_asleep: bool = False
    adapters: AdaptersSeen | None = None


@dataclass(frozen=True, slots=True)
class ScrapeRule:
    """How often `/metrics` is read, and for how long the signals hold."""

    busy_interval_s: Seconds = 0.1  # design: 10 Hz where there is traffic
    idle_interval_s: Seconds = 1.0  # design: 1 Hz where there is none
    timeout_s: Seconds = 1.0  # measured: 177 ms at the start of a burst of 400; the rest is margin
    stale_after_s: Seconds = 2.0  # guessed: two idle intervals
    models_interval_s: Seconds = 30.0  # guessed: adapters are loaded rarely
    max_response_bytes: Annotated[int, Ge(1 << 10), Le(1 << 30)] = 1 << 20  # measured: vLLM prints 48 KB

    def __post_init__(self) -> None:
        if self.stale_after_s <= max(self.busy_interval_s, self.idle_interval_s):
            raise ValueError("stale_after_s must be larger than busy_interval_s and idle_interval_s")


def foreign_load(running: float, waiting: float, largest_own: float) -> float:
    """Return the load that others put there: requests beyond the most that were recently our own.

    The largest of the last second, because a request that has just ended is still counted by the server,
    and must not be taken for a stranger's.
    """
    return max(0.0, running + waiting - largest_own)


def running_now(running: float, change: float, load: float, limit: float, is_fresh: bool) -> float:
    """Estimate the requests that run now, from a gauge that is already old.

    The scraped value is corrected by the `change` of our own in flight since: sent less finished. It is
    never below the load, since a burst that the gauge has not seen is nevertheless there, and never above
    the server's own limit.
    """
    seen = running + change
    now = seen if is_fresh and seen > load else load
    return now if now < limit else limit
