"""What the policy has to know of the configuration."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """Layer 2's settings, see `extproc.example.yaml`."""

    is_predict_enabled: bool
    max_predicted_ttft_s: float
    tie_fraction: float
    max_candidates: int
