"""Tracing as the sidecar has it: what traces decisions, and what sends the spans."""

from collections.abc import Mapping

import numpy as np

from extproc.adapters.tracing.span_export import SpanExport
from extproc.adapters.tracing.traced_placer import TracedPlacer
from extproc.config.tracing_stage import TracingConfig
from extproc.routing.core import Core


class DecisionTracing:
    """`place` stands in for the core's own; `stop` sends the last spans."""

    def __init__(self, config: TracingConfig, core: Core, rng: np.random.Generator) -> None:
        self._export = SpanExport(config)
        self._placer = TracedPlacer(
            core.place, core.router, self._export.tracer, rng, config.sample_share, config.max_spans_per_s
        )
        self.place = self._placer.place
        self.stop = self._export.stop

    def counts(self) -> Mapping[str, int]:
        """Return the spans by what became of them."""
        exported = {result: self._export.counts[result] for result in ("exported", "failed")}
        return {**exported, "left_out": self._placer.left_out}
