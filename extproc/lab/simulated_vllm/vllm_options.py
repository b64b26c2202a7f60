"""The options of `extproc sim`; their names are those of vLLM's own options where vLLM has them."""

from dataclasses import dataclass
from typing import Annotated

import typer

from extproc.errors import ConfigError
from extproc.lab.engine.engine_limits import EngineLimits
from extproc.lab.engine.engine_profile import EngineProfile
from extproc.lab.twin.profile_file import find_profile

MAX_GAUGE_DELAY_S = 60.0
"""Guessed; it bounds what is kept of the past. (A cold vLLM was seen to show nothing for 18 s.)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """One simulated server; raises ConfigError for what cannot be simulated.

    Port 0 picks a free one. `speed` multiplies the profile's. `kv_cache_tokens` of None is what the profile's
    machine has. `http_limit` is the most requests that get as far as the engine; beyond `max_num_queued_reqs`
    waiting in it further ones are refused. Gauges and counters are `gauge_delay_s` late. `fail_fraction` is
    the share of requests answered with 500, drawn with `seed`.
    """

    port: Annotated[int, typer.Option(help="0 picks a free one.", min=0, max=65535, metavar="PORT")] = (
        8000  # borrowed: vLLM's default
    )
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1"
    models: Annotated[
        tuple[str, ...],
        typer.Option("--model", help="What it serves; may be repeated.", show_default="sim"),
    ] = ("sim",)
    profile: Annotated[
        str, typer.Option(help="The machine that it is: a name, or the file of a calibration.")
    ] = "l4-8b"
    speed: Annotated[float, typer.Option(help="2 is twice as fast as the profile.")] = 1.0
    max_num_seqs: Annotated[int, typer.Option(help="Places in the batch.")] = 256  # borrowed: vLLM's default
    # Guessed; a model's own limit is often beyond what a small KV cache holds.
    max_model_len: Annotated[int, typer.Option(help="Tokens of input and output together.")] = 8192
    kv_cache_tokens: Annotated[
        int | None, typer.Option(help="Size of the KV cache.", show_default="the profile's")
    ] = None
    # Borrowed: vLLM's default for an API server.
    max_num_batched_tokens: Annotated[int, typer.Option(help="Tokens computed in one iteration.")] = 2048
    http_limit: Annotated[
        int | None, typer.Option(help="Requests let into the engine; others wait where no gauge counts them.")
    ] = None
    max_num_queued_reqs: Annotated[
        int | None,
        typer.Option(help="Requests that may wait in the engine; further ones are refused as vLLM does it."),
    ] = None
    gauge_delay_s: Annotated[
        float,
        typer.Option(
            "--gauge-delay",
            help="Seconds by which gauges and counters are late; vLLM's are by 0.3 to 0.5.",
        ),
    ] = 0.0
    fail_fraction: Annotated[float, typer.Option(help="Share of requests answered with 500.")] = 0.0
    seed: Annotated[int, typer.Option(help="Of the failures.")] = 0

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
        """The machine that `profile`, a name or a file, stands for."""
        return find_profile(self.profile)

    def limits(self) -> EngineLimits:
        """The engine's limits."""
        profile_tokens = self.engine_profile().kv_cache_tokens
        return EngineLimits(
            kv_cache_tokens=profile_tokens if self.kv_cache_tokens is None else self.kv_cache_tokens,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            http_limit=self.http_limit,
        )
