from dataclasses import dataclass, field
from typing import cast

import pytest
from support.build import MEDIUM_LOAD, MODEL, a_core, a_request, an_endpoint

from extproc.exchange.messages import Phase, RouteTo
from extproc.fleet.backend import Backend
from extproc.fleet.signals import Signals
from extproc.learning.model_in_use import ModelOffer
from extproc.learning.predictor import Predictor
from extproc.outcomes.outcome import LogEntry
from extproc.request.request import InputSize
from extproc.request.token_ratio import DEFAULT_TOKENS_PER_BYTE
from extproc.routing.core import Core

TEXT_BYTES = 4000


@dataclass(frozen=True)
class FakeManifest:
    model_version: str
    offsets: dict[str, float] = field(default_factory=dict)
    medium_load: float | None = None


@dataclass(frozen=True)
class FakeModel:
    """A model that is never asked."""

    manifest: FakeManifest


def offer(version: str, offsets: dict[str, float], medium_load: float | None = None) -> ModelOffer:
    model = FakeModel(FakeManifest(version, offsets, medium_load))
    return ModelOffer(version.encode(), cast(Predictor, model))


def serve(core: Core, now_s: float) -> RouteTo:
    """Place a request and end it."""
    placement = core.place(a_request(input_size=InputSize(text_bytes=TEXT_BYTES)), Phase.REQUEST_BODY, now_s)
    assert isinstance(placement.instruction, RouteTo)
    assert placement.lease is not None
    placement.lease.end(now_s)
    return placement.instruction


def count_tokens(core: Core, backend: Backend, prompt_tokens_total: float, now_s: float) -> None:
    """Scrape a backend that has counted so many prompt tokens since it was started."""
    core.scraped(backend, Signals(0, 0, prompt_tokens_total=prompt_tokens_total), backend.own, now_s)


def backend_named(core: Core, name: str) -> Backend:
    backend = core.registry.backend_named(name)
    assert backend is not None
    return backend


def replace_member(core: Core, now_s: float) -> tuple[Backend, Backend]:
    """Let vllm-1 leave and vllm-2 join, which Envoy knows."""
    former = backend_named(core, "vllm-1")
    newcomers = [an_endpoint(2)]
    core.set_members([], now_s)
    core.advance(now_s)
    assert core.registry.members == ()
    core.set_members(newcomers, now_s, newcomers)
    return former, backend_named(core, "vllm-2")


def test_the_counter_of_a_backend_teaches_the_tokens_of_the_text_that_was_sent_there() -> None:
    core = a_core([an_endpoint(1)])
    backend = backend_named(core, "vllm-1")
    count_tokens(core, backend, 10_000, now_s=1.0)
    serve(core, 1.1)
    count_tokens(core, backend, 10_000 + TEXT_BYTES / 2, now_s=1.2)
    assert DEFAULT_TOKENS_PER_BYTE < core.ratios.tokens_per_byte(MODEL) < 0.5


def test_a_server_without_the_counter_teaches_no_tokens() -> None:
    core = a_core([an_endpoint(1)])
    backend = backend_named(core, "vllm-1")
    for now_s in range(1, 10):
        serve(core, now_s)
        core.scraped(backend, Signals(0, 0), 0, now_s)
    assert core.ratios.tokens_per_byte(MODEL) == DEFAULT_TOKENS_PER_BYTE


def test_the_lifetime_counter_of_a_newcomer_is_not_compared_with_that_of_a_backend_that_left() -> None:
    core = a_core([an_endpoint(1)])
    count_tokens(core, backend_named(core, "vllm-1"), 10_000, now_s=1.0)
    former, newcomer = replace_member(core, 2.0)
    serve(core, 3.0)
    assert (former.ended, newcomer.ended) == (0, 1)
    count_tokens(core, newcomer, 16_000, now_s=4.0)
    assert core.ratios.tokens_per_byte(MODEL) == DEFAULT_TOKENS_PER_BYTE, (
        "its first scrape only opens a window"
    )
    serve(core, 5.0)
    count_tokens(core, newcomer, 16_000 + TEXT_BYTES / 2, now_s=6.0)
    assert DEFAULT_TOKENS_PER_BYTE < core.ratios.tokens_per_byte(MODEL) < 0.5, "its own text is learned from"


def test_predictions_start_at_the_offset_that_the_model_file_has_for_the_backend() -> None:
    core = a_core([an_endpoint(1), an_endpoint(2)])
    assert core.use_model(offer("v1", {"vllm-2": 0.7, "vllm-3": -0.3}))
    assert [each.predictions.correction for each in core.registry.members] == [0.0, 0.7]
    core.set_members([an_endpoint(number) for number in (1, 2, 3)], 1.0)
    assert backend_named(core, "vllm-3").predictions.correction == -0.3


def test_a_newcomer_learns_from_outcomes_of_the_model_in_use() -> None:
    core = a_core()
    core.use_model(offer("v1", {}))
    (newcomer,) = core.set_members([an_endpoint(1)], 1.0)
    newcomer.predictions.observe("v1", model_log_ttft=0.0, ttft_s=9.0)
    assert newcomer.predictions.error is not None


def test_a_new_model_starts_every_correction_afresh() -> None:
    core = a_core([an_endpoint(1)])
    backend = backend_named(core, "vllm-1")
    core.use_model(offer("v1", {}))
    backend.predictions.observe("v1", model_log_ttft=0.0, ttft_s=9.0)
    core.use_model(offer("v2", {"vllm-1": 0.1}))
    assert (backend.predictions.correction, backend.predictions.error) == (0.1, None)


def test_a_model_says_where_the_medium_zone_starts_for_members_and_newcomers() -> None:
    core = a_core([an_endpoint(1)])
    core.use_model(offer("v1", {}))
    assert backend_named(core, "vllm-1").medium_load == MEDIUM_LOAD
    core.use_model(offer("v2", {}, medium_load=30.0))
    (newcomer,) = core.set_members([an_endpoint(1), an_endpoint(2)], 1.0)
    assert [backend_named(core, "vllm-1").medium_load, newcomer.medium_load] == [30.0, 30.0]


def test_a_refused_model_changes_nothing() -> None:
    core = a_core([an_endpoint(1)])
    core.use_model(offer("v1", {"vllm-1": 0.7}))
    assert not core.use_model(ModelOffer(b"bad", refused="no model"))
    assert backend_named(core, "vllm-1").predictions.correction == 0.7


def test_outcomes_are_counted_for_members_alone() -> None:
    core = a_core([an_endpoint(1)])
    routed = serve(core, 1.0)
    entry = LogEntry(0.0, 1.0, 200, 1, frozenset(), 0, routed.metadata, {"ttft_us": "300000"})
    assert core.learn(entry, 2.0) is not None
    assert core.feedback.counts.by_result == {("vllm-1", "ok"): 1}
    replace_member(core, 3.0)
    assert core.feedback.counts.by_result == {}
    late = core.learn(entry, 4.0)
    assert late is not None
    assert late.sample.ttft_s == pytest.approx(0.3)
    assert core.feedback.counts.by_result == {}
