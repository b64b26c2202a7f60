"""Decisions counted by layer and reason: what `/metrics` and `/v1/state` show."""

from collections import Counter

from extproc.policy.decision import Decision, Layer, Reason


class DecisionCounts:
    """Counters since the start. Both labels are enums, so their number is bounded."""

    def __init__(self) -> None:
        self.by_reason: Counter[tuple[Layer, Reason]] = Counter()
        self.guarded = 0
        self.passed_through = 0
        self.expected_cached_tokens = 0.0

    def count(self, decision: Decision) -> None:
        """A decision was made; `guarded` counts those in which the guard took at least one candidate out."""
        self.by_reason[decision.layer, decision.reason] += 1
        self.guarded += decision.guarded > 0
        if decision.chosen is not None:
            self.expected_cached_tokens += decision.chosen.cached_tokens

    def by_layer(self) -> dict[str, int]:
        """Decisions by layer, those that the guard had a part in as `guard`."""
        totals = {"guard": self.guarded} | {
            layer.value: 0 for layer in (Layer.PREDICT, Layer.LEAST_LOAD, Layer.REJECT)
        }
        for (layer, _), count in self.by_reason.items():
            totals[layer.value] += count
        return totals
