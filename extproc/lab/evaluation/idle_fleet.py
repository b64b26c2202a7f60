"""The time to the first token on an idle machine: what a request's delay is measured from.

An idle engine computes one prompt alone, chunk by chunk, with nothing cached and nothing to decode. So the
time has a closed form: each iteration reads the weights and the part of the prompt that is already computed.
It is what `Engine` and the costs outside of it add up to, but for the rounding of the last digits.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile
from extproc.lab.engine.run import TICK_S
from extproc.lab.evaluation.simulated_server import ServerSpec

Floats = npt.NDArray[np.float64]


class IdleFleet:
    """The machines of a fleet, each without any other request; all of them, whenever they are there."""

    def __init__(self, specs: Sequence[ServerSpec]) -> None:
        self._machines = list(dict.fromkeys((spec.profile, spec.limits) for spec in specs))

    def fastest_ttft_s(self, prompt_tokens: float) -> float:
        """Return the TTFT of such a prompt on the machine that is the fastest for it."""
        return float(self.fastest_ttfts_s(np.array([prompt_tokens], np.float64))[0])

    def fastest_ttfts_s(self, prompt_tokens: Floats) -> Floats:
        """Return the TTFT of each prompt on the machine that is the fastest for it."""
        ttfts_s = [idle_ttfts_s(profile, limits, prompt_tokens) for profile, limits in self._machines]
        fastest_s: Floats = np.minimum.reduce(ttfts_s)
        return fastest_s


def idle_ttfts_s(profile: EngineProfile, limits: EngineLimits, prompt_tokens: Floats) -> Floats:
    """Return the TTFT of each prompt on one idle machine."""
    cost, chunk = profile.step_ticks(), limits.max_num_batched_tokens
    iterations = np.ceil(prompt_tokens / chunk)
    read_again = chunk * iterations * (iterations - 1) / 2  # tokens of earlier chunks, over all iterations
    pairs = prompt_tokens * (prompt_tokens + 1) / 2
    ticks = (
        iterations * cost.base
        + prompt_tokens * cost.prefill_token
        + read_again * cost.kv_token
        + pairs * cost.attention_pair
    )
    outside_s = (profile.request_s + prompt_tokens * profile.request_token_s) / profile.speed
    idle_s: Floats = ticks * TICK_S + outside_s
    return idle_s
