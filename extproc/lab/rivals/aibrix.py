"""AIBrix's least-latency: the smallest expected latency, from the averages that vLLM exports.

Source: vllm-project/aibrix, `least_latency.go` of its gateway plugin. A backend's expected latency is its
mean queueing and prefill time and its mean decode time, this per token and for the mean output of the whole
fleet; averages are since the start of the server. If several are equal the last is taken.

Two things differ. The simulated engine tells the time to the first token, but not where queueing ends and
prefill begins; so prefill is not set to the mean prompt of the fleet, which changes nothing where backends
get equal mixes. And the source reads the queueing time as a single value of what is a histogram; here it is
its mean, as was probably meant.
"""

from extproc.lab.evaluation.simulated_server import Gauges
from extproc.lab.rivals.policy import Candidates, Policy
from extproc.lab.traffic.arrivals import Arrival

GUESSED_OUTPUT_TOKENS = 100.0
"""Borrowed: where nothing has been generated yet."""


class LeastLatency(Policy):
    """Deterministic: every router with the same scrapes chooses the same backend."""

    needs_gauges = True

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int | None:
        """Return the last of those with the smallest expected latency."""
        all_gauges = [candidate.gauges for candidate in candidates]
        means = [mean for mean in map(_mean_output, all_gauges) if mean > 0]
        fleet_mean = sum(means) / len(means) if means else GUESSED_OUTPUT_TOKENS
        expected_s = [_expected_s(gauges, fleet_mean) for gauges in all_gauges]
        smallest_s = min(expected_s)
        return candidates[
            max(index for index, each_s in enumerate(expected_s) if each_s == smallest_s)
        ].backend


def _mean_output(gauges: Gauges) -> float:
    return gauges.generation_tokens / gauges.finished if gauges.finished else 0.0


def _expected_s(gauges: Gauges, fleet_mean_output: float) -> float:
    to_first_s = gauges.engine_ttft_s / gauges.ttfts if gauges.ttfts else 0.0
    decode_s = gauges.decode_s / gauges.finished if gauges.finished else 0.0
    return to_first_s + decode_s / (_mean_output(gauges) or fleet_mean_output) * fleet_mean_output
