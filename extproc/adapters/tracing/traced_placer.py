"""Makes a span for every traced decision: where a request went and why, and what the others had to offer.

It stands before the core as the `Placer` of every exchange, where tracing is configured; nothing of it is
there where it is not. A client's trace is gone on with where its traceparent says that it is sampled
(https://www.w3.org/TR/trace-context/); of requests without one a share is traced. The span's own id is handed
on to the server, so that its spans are beneath this one. No part of a prompt is in a span.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Tracer
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from extproc.exchange.messages import Answer, Phase, RouteTo
from extproc.exchange.placement import HeldLease, Placement, Placer
from extproc.outcomes.facts import from_metadata
from extproc.policy.candidate_estimates import CandidateEstimate
from extproc.request.request import Request
from extproc.routing.refusal import LAYER_HEADER, REASON_HEADER
from extproc.routing.router import Router

MAX_CANDIDATES = 16
"""Guessed: the best ones; a span should stay small."""

NEW_TRACE_KEY = "traceparent"
"""In the metadata: see envoy.yaml, `request_headers_to_add`."""

MAX_NAME = 256
_PROPAGATOR = TraceContextTextMapPropagator()
_NO_CONTEXT = Context()


@dataclass(slots=True, eq=False)
class TracedPlacer:
    """Places requests by `place_untraced`, and traces some; `left_out` counts those beyond the rate."""

    _place_untraced: Placer
    _router: Router
    _tracer: Tracer
    _rng: np.random.Generator
    _sample_share: float
    _max_spans_per_s: float
    left_out: int = 0
    _spans_left: float = inf  # at first as many as are allowed
    _counted_at_s: float = 0.0

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        """Place a request, and make a span of it where it is traced."""
        context = self._sampled_context(request)
        if context is None or not self._may_begin(now_s):
            return self._place_untraced(request, phase, now_s)
        candidates = self._router.candidate_estimates(request, now_s, MAX_CANDIDATES)
        span = self._tracer.start_span("extproc.decision", context, SpanKind.INTERNAL)
        _describe(span, request, candidates)
        placement = self._place_untraced(request, phase, now_s)
        if isinstance(placement.lease, HeldLease):
            return Placement(placement.instruction, _TracedHold(placement.lease, span))
        return _ended(span, placement)

    def _sampled_context(self, request: Request) -> Context | None:
        """Return the context that the span is in; None where the request is not traced."""
        if not request.has_body:
            return None
        if request.traceparent:
            context = _PROPAGATOR.extract({"traceparent": request.traceparent}, _NO_CONTEXT)
            parent = get_current_span(context).get_span_context()
            if parent.is_valid:
                return context if parent.trace_flags.sampled else None
        return _NO_CONTEXT if self._rng.random() < self._sample_share else None

    def _may_begin(self, now_s: float) -> bool:
        """Return whether another span is within the rate: clients can ask for as many as they like."""
        earned = max(0.0, now_s - self._counted_at_s) * self._max_spans_per_s
        self._spans_left = min(max(1.0, self._max_spans_per_s), self._spans_left + earned)
        self._counted_at_s = now_s
        if self._spans_left < 1.0:
            self.left_out += 1
            return False
        self._spans_left -= 1.0
        return True


class _TracedHold(HeldLease):
    """The lease of a held request: its span ends when it is placed, or when its client leaves."""

    __slots__ = ("_began_s", "_held", "_span")

    def __init__(self, held: HeldLease, span: Span) -> None:
        super().__init__()
        self._held = held
        self._span = span
        self._began_s = time.monotonic()
        held.respond = self._answer

    def _answer(self, placement: Placement) -> None:
        self._span.set_attribute("extproc.waited_s", time.monotonic() - self._began_s)
        self.settle(_ended(self._span, placement))

    def _release(self, now_s: float) -> None:
        self._held.end(now_s)
        self._span.set_attribute("extproc.reason", "client_left")
        self._span.end()


def _describe(span: Span, request: Request, candidates: Sequence[CandidateEstimate]) -> None:
    span.set_attributes(
        {
            "gen_ai.operation.name": request.api.kind,
            "gen_ai.request.model": (request.model or "")[:MAX_NAME],
            "extproc.is_stream": request.is_stream,
            "extproc.input_tokens": request.input_tokens,
            "extproc.candidates": [each.backend for each in candidates],
            "extproc.candidates.load": [each.load for each in candidates],
            "extproc.candidates.wait_s": [each.wait_s for each in candidates],
            "extproc.candidates.ttft_s": [each.ttft_s for each in candidates],
            "extproc.candidates.is_open": [each.is_open for each in candidates],
        }
    )


def _ended(span: Span, placement: Placement) -> Placement:
    """End a span by what became of the request, and hand its id on to the server."""
    instruction = placement.instruction
    if isinstance(instruction, Answer):
        layer, reason = (instruction.headers.get(name, "") for name in (LAYER_HEADER, REASON_HEADER))
        span.set_attributes({"extproc.layer": layer, "extproc.reason": reason})
        span.set_attribute("http.response.status_code", instruction.status)
        span.set_status(Status(StatusCode.ERROR, reason))
    elif isinstance(instruction, RouteTo):
        facts = from_metadata(instruction.metadata)
        if facts is not None:
            span.set_attributes({f"extproc.{name}": getattr(facts, name) for name in _FACTS})
            span.set_attributes(
                {f"extproc.estimate.{name}": each_s for name, each_s in facts.estimate._asdict().items()}
            )
            if facts.predicted_ttft_s is not None:
                span.set_attribute("extproc.predicted_ttft_s", facts.predicted_ttft_s)
        placement = Placement(_handed_on(instruction, span), placement.lease)
    else:
        span.set_attribute("extproc.layer", "pool")
    span.end()
    return placement


_FACTS = ("backend", "layer", "reason", "zone", "load", "expected_cached_tokens")


def _handed_on(instruction: RouteTo, span: Span) -> RouteTo:
    """Return the instruction with the span's id for the server.

    That of a new trace is metadata, which envoy.yaml adds where the client has sent none: it may not have
    been shown to extproc.
    """
    context = span.get_span_context()
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
    if isinstance(span, ReadableSpan) and span.parent is None:
        return replace(instruction, metadata={NEW_TRACE_KEY: traceparent, **instruction.metadata})
    return replace(instruction, traceparent=traceparent)
