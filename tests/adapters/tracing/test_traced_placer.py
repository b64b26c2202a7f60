"""Which decisions are traced, and the span of each: without a prompt's text, and ended however it goes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from support.build import MAX_ACTIVE, a_core, a_request, core_rules, endpoints

from extproc.adapters.tracing.traced_placer import MAX_CANDIDATES, NEW_TRACE_KEY, TracedPlacer
from extproc.exchange.messages import Hold, Phase, Reject, RouteTo
from extproc.exchange.placement import HeldLease, Placement
from extproc.routing.core import Core
from extproc.routing.queue.queue_rules import QueueRules

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@dataclass
class Traced:
    """A core, and what traces its decisions."""

    core: Core
    share: float = 0.0
    max_spans_per_s: float = 1000.0
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        tracer = provider.get_tracer("test")
        assert isinstance(tracer, Tracer)
        self.placer = TracedPlacer(
            self.core.place,
            self.core.router,
            tracer,
            np.random.default_rng(0),
            self.share,
            self.max_spans_per_s,
        )

    def place(self, traceparent: str = "", now_s: float = 1.0, **changes: object) -> Placement:
        request = a_request(traceparent=traceparent, **changes)
        return self.placer.place(request, Phase.REQUEST_BODY, now_s)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def said(self) -> Mapping[str, object]:
        (span,) = self.spans
        assert span.attributes is not None
        return span.attributes


def test_a_sampled_trace_of_a_client_is_gone_on_with_and_handed_on() -> None:
    traced = Traced(a_core(endpoints(3)))
    routed = traced.place(SAMPLED).instruction
    assert isinstance(routed, RouteTo)
    (span,) = traced.spans
    assert span.parent is not None
    assert span.context is not None
    assert (span.parent.trace_id, span.parent.span_id) == (int(TRACE, 16), int(PARENT, 16))
    assert routed.traceparent == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert NEW_TRACE_KEY not in routed.metadata


def test_a_span_says_what_was_decided_and_what_the_others_had_to_offer() -> None:
    core = a_core(endpoints(3))
    core.registry.members[0].reserve(1.0)
    traced = Traced(core)
    routed = traced.place(SAMPLED).instruction
    assert isinstance(routed, RouteTo)
    said = traced.said()
    assert (said["extproc.backend"], said["extproc.layer"], said["extproc.reason"]) == (
        routed.metadata["backend"],
        routed.metadata["layer"],
        routed.metadata["reason"],
    )
    assert said["gen_ai.request.model"] == "m"
    names, loads = said["extproc.candidates"], said["extproc.candidates.load"]
    assert isinstance(names, tuple)
    assert isinstance(loads, tuple)
    assert (sorted(names), sorted(loads)) == (["vllm-1", "vllm-2", "vllm-3"], [0, 0, 1])
    assert names[-1] == "vllm-1", "the best one first"
    assert said["extproc.candidates.is_open"] == (True, True, True)
    assert said["extproc.estimate.own_prompt_s"] > 0  # type: ignore[operator]


@pytest.mark.parametrize(
    "traceparent", [UNSAMPLED, "", "nonsense", f"00-{'0' * 32}-{PARENT}-01", "é" * 1000, SAMPLED[:-1]]
)
def test_what_is_not_sampled_is_not_traced(traceparent: str) -> None:
    traced = Traced(a_core(endpoints(1)))
    routed = traced.place(traceparent).instruction
    assert isinstance(routed, RouteTo)
    assert (routed.traceparent, traced.spans) == ("", ())


def test_a_share_of_the_requests_without_a_trace_begins_one() -> None:
    traced = Traced(a_core(endpoints(2), core_rules()), share=0.3)
    for _ in range(400):
        placement = traced.place()
        assert isinstance(placement.instruction, RouteTo)
        assert not placement.instruction.traceparent
        assert placement.lease is not None
        placement.lease.end(1.0)
    assert 80 < len(traced.spans) < 160
    assert all(span.parent is None for span in traced.spans)
    routed = Traced(a_core(endpoints(1)), share=1.0).place().instruction
    assert isinstance(routed, RouteTo)
    assert routed.metadata[NEW_TRACE_KEY].startswith("00-")


def test_a_refusal_is_an_error_with_its_reason() -> None:
    traced = Traced(a_core(endpoints(1)))
    assert isinstance(traced.place(SAMPLED, model="other").instruction, Reject)
    assert (traced.said()["extproc.layer"], traced.said()["extproc.reason"]) == ("reject", "unknown_model")
    assert traced.said()["http.response.status_code"] == 404
    assert traced.spans[0].status.status_code is StatusCode.ERROR


def test_a_request_that_is_left_to_envoys_pool_says_so() -> None:
    traced = Traced(a_core())
    traced.place(SAMPLED)
    assert traced.said()["extproc.layer"] == "pool"


def a_held_request() -> tuple[Traced, list[Placement], Placement, list[Placement]]:
    """Requests that fill a backend, and one that waits with what it is answered later."""
    traced = Traced(a_core(endpoints(1), core_rules(queue=QueueRules())))
    placed = [traced.place() for _ in range(MAX_ACTIVE)]
    held, answers = traced.place(SAMPLED), list[Placement]()
    assert isinstance(held.instruction, Hold)
    assert isinstance(held.lease, HeldLease)
    held.lease.respond = answers.append
    assert traced.spans == ()
    return traced, placed, held, answers


def test_the_span_of_a_held_request_ends_when_it_is_placed() -> None:
    traced, placed, _, answers = a_held_request()
    for each in placed:
        assert each.lease is not None
        each.lease.end(2.0)
    (answer,) = answers
    assert isinstance(answer.instruction, RouteTo)
    assert answer.instruction.traceparent.startswith(f"00-{TRACE}-")
    assert answer.lease is not None
    answer.lease.end(3.0)
    assert traced.core.registry.members[0].own == 0
    assert traced.said()["extproc.backend"] == "vllm-1"
    assert traced.said()["extproc.waited_s"] >= 0  # type: ignore[operator]


def test_a_client_that_leaves_while_it_is_held_ends_the_span_once() -> None:
    traced, _, held, answers = a_held_request()
    assert traced.core.queue is not None
    assert held.lease is not None
    held.lease.end(2.0)
    held.lease.end(3.0)
    assert (traced.core.queue.waiting, answers) == (0, [])
    assert traced.said()["extproc.reason"] == "client_left"


def test_clients_that_ask_for_many_spans_get_them_at_the_rate() -> None:
    traced = Traced(a_core(endpoints(1)), max_spans_per_s=2.0)
    for _ in range(10):
        traced.place(SAMPLED)
    assert (len(traced.spans), traced.placer.left_out) == (2, 8)
    traced.place(SAMPLED, now_s=1.5)
    assert len(traced.spans) == 3


def test_a_large_fleet_makes_no_large_span() -> None:
    traced = Traced(a_core(endpoints(100)))
    traced.place(SAMPLED)
    names = traced.said()["extproc.candidates"]
    assert isinstance(names, tuple)
    assert len(names) == MAX_CANDIDATES


def test_requests_without_work_are_not_traced() -> None:
    traced = Traced(a_core(endpoints(1)), share=1.0)
    traced.place(has_body=False)
    assert traced.spans == ()
