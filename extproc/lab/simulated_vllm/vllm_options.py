"""The options of `extproc sim`; their names are those of vLLM's own options where vLLM has them."""

from dataclasses import dataclass

from extproc.config.options import option
from extproc.errors import ConfigError
from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile
from extproc.lab.twin.profile_file import find_profile

MAX_GAUGE_DELAY_S = 60.0
"""Guessed; it bounds what is kept of the past. (A cold vLLM was seen to show nothing for 18 s.)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """One simulated server; raises ConfigError for what cannot be simulated."""

    port: int = option(
        8000, "Port to listen on; 0 picks a free one.", min=0, max=65535, metavar="PORT"
    )  # borrowed: vLLM's
    host: str = option("127.0.0.1", "Address to listen on.", metavar="ADDRESS")
    models: tuple[str, ...] = option(
        ("sim",), "Name of a model to serve; may be repeated.", "--model", metavar="NAME", show_default="sim"
    )
    profile: str = option(
        "l4-8b",
        "Profile of the simulated machine: a name, or a file of `extproc calibrate`.",
        metavar="PROFILE",
    )
    speed: float = option(1.0, "Speed of the machine; 2 is twice as fast as the profile.")
    max_num_seqs: int = option(256, "Number of requests in the batch at once.")  # borrowed: vLLM's default
    # Guessed; a model's own limit is often beyond what a small KV cache holds.
    max_model_len: int = option(8192, "Context of the model: tokens of input and output together.")
    kv_cache_tokens: int | None = option(
        None, "Size of the KV cache, in tokens.", show_default="the profile's"
    )
    # Borrowed: vLLM's default for an API server.
    max_num_batched_tokens: int = option(2048, "Number of tokens computed in one iteration.")
    http_limit: int | None = option(
        None, "Number of requests in the engine; others wait in front of it, and no gauge counts them."
    )
    max_num_queued_reqs: int | None = option(
        None, "Number of requests that may wait in the engine; others are refused, as vLLM does."
    )
    gauge_delay_s: float = option(
        0.0, "Delay of gauges and counters in seconds; vLLM has 0.3 to 0.5.", "--gauge-delay"
    )
    fail_fraction: float = option(0.0, "Share of requests that are answered with 500.")
    seed: int = option(0, "Seed of the random failures.")

    def __post_init__(self) -> None:
        limits = self.limits()
        cache_tokens = limits.kv_cache_blocks * limits.block_size
        rules = {
            f"port must be between 0 and 65535, not {self.port}": 0 <= self.port <= 65535,
            "models must name at least one model": bool(self.models),
            f"speed must be above 0, not {self.speed}": self.speed > 0,
            f"max_num_queued_reqs must be at least 0, not {self.max_num_queued_reqs}": (
                self.max_num_queued_reqs is None or self.max_num_queued_reqs >= 0
            ),
            f"gauge_delay_s must be between 0 and {MAX_GAUGE_DELAY_S:g}, not {self.gauge_delay_s}": (
                0 <= self.gauge_delay_s <= MAX_GAUGE_DELAY_S
            ),
            f"fail_fraction must be between 0 and 1, not {self.fail_fraction}": 0 <= self.fail_fraction <= 1,
            f"max_model_len must be between 2 and the {cache_tokens} tokens of the KV cache, "
            f"not {self.max_model_len}": 2 <= self.max_model_len <= cache_tokens,
        }
        if faults := [message for message, is_kept in rules.items() if not is_kept]:
            raise ConfigError("; ".join(faults))

    def engine_profile(self) -> EngineProfile:
        """Return the machine that `profile`, a name or a file, stands for."""
        return find_profile(self.profile)

    def limits(self) -> EngineLimits:
        """Return the engine's limits."""
        profile_tokens = self.engine_profile().kv_cache_tokens
        return EngineLimits(
            kv_cache_tokens=profile_tokens if self.kv_cache_tokens is None else self.kv_cache_tokens,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            http_limit=self.http_limit,
        )
