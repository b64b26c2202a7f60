import asyncio
import json
import math
import re
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from support.busy_parts import SampleWith, exposition, let_everything_happen
from support.running_parts import BACKENDS, MAX_ACTIVE, SETTLE_S, SHIPPED_MODEL, Parts

from extproc.adapters.files.sample_store import SampleStore
from extproc.outcomes.outcome_counts import TTFT_BOUNDS_S
from extproc.routing.queue.request_queue import RequestQueue

Series = tuple[str, frozenset[tuple[str, str]]]


def series(metrics: list[Metric]) -> dict[Series, float]:
    """The value of each series; none may come twice."""
    samples = [sample for metric in metrics for sample in metric.samples]
    counts = Counter((sample.name, frozenset(sample.labels.items())) for sample in samples)
    assert [key for key, count in counts.items() if count > 1] == []
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def value(parts: Parts, name: str, **labels: str) -> float | None:
    return series(exposition(parts)).get((name, frozenset(labels.items())))


@pytest.fixture
def busy(parts: Parts, sample_with: SampleWith) -> Parts:
    let_everything_happen(parts, sample_with)
    return parts


def test_every_metric_has_the_prefix_and_is_documented(busy: Parts) -> None:
    for metric in exposition(busy):
        assert metric.name.startswith("extproc_")
        assert metric.documentation
        assert metric.samples, f"{metric.name} has nothing to say"
        assert metric.type in {"counter", "gauge", "histogram"}


def test_units_are_base_units(busy: Parts) -> None:
    for metric in exposition(busy):
        assert not re.search(r"_(ms|us|milliseconds|minutes|percent|kb|mb|kilobytes)\b", metric.name)
        if re.search("ttft|age", metric.name):
            assert metric.name.endswith("_seconds")
        if metric.type == "counter":
            assert all(sample.name == f"{metric.name}_total" for sample in metric.samples)


def test_there_is_a_metric_for_every_part_before_anything_happens(parts: Parts) -> None:
    names = {metric.name for metric in exposition(parts)}
    assert names >= {
        *("extproc_backend_load_requests", "extproc_backend_routable", "extproc_backend_zone"),
        *("extproc_decisions", "extproc_outcomes", "extproc_ttft_seconds", "extproc_scrapes"),
        *("extproc_model_loaded", "extproc_open_streams", "extproc_draining"),
    }


def test_a_gauge_says_what_the_state_says(busy: Parts) -> None:
    assert value(busy, "extproc_backend_own_requests", backend="vllm-2") == MAX_ACTIVE
    assert value(busy, "extproc_backend_routable", backend="vllm-2") == 0.0
    assert value(busy, "extproc_backend_zone", backend="vllm-2", zone="saturated") == 1.0
    assert value(busy, "extproc_backend_observed_ttft_seconds", backend="vllm-1") == pytest.approx(0.3)
    assert value(busy, "extproc_backend_state", backend="vllm-2", state="saturated") == 1.0
    assert value(busy, "extproc_backend_signals_fresh", backend="vllm-1") == 1.0
    assert value(busy, "extproc_backend_signals_fresh", backend="vllm-2") == 0.0
    assert value(busy, "extproc_model_loaded") == 1.0
    predicted_s = value(busy, "extproc_backend_predicted_ttft_seconds", backend="vllm-1")
    assert predicted_s is not None
    assert predicted_s > 0


def test_what_is_not_known_has_no_sample(parts: Parts) -> None:
    found = series(exposition(parts))
    assert value(parts, "extproc_backend_scrape_age_seconds", backend="vllm-1") is None
    assert not any(math.isnan(number) for number in found.values())


def test_a_refused_model_file_shows_until_a_good_one_comes(parts: Parts) -> None:
    assert value(parts, "extproc_model_file_refused") == 0.0
    parts.offer_model(b"no model")
    assert value(parts, "extproc_model_file_refused") == 1.0
    assert value(parts, "extproc_model_trained_timestamp_seconds") is None
    parts.offer_shipped_model()
    assert value(parts, "extproc_model_file_refused") == 0.0
    trained_at = json.loads(SHIPPED_MODEL.read_bytes())["manifest"]["trained_at"]
    made = value(parts, "extproc_model_trained_timestamp_seconds")
    assert made == datetime.fromisoformat(trained_at).timestamp()


def test_metrics_of_the_process_have_the_same_prefix(parts: Parts) -> None:
    for name in ("cpu_seconds_total", "resident_memory_bytes", "start_time_seconds", "open_fds"):
        found = value(parts, f"extproc_process_{name}")
        assert found is not None
        assert found > 0


def test_events_are_counted_by_their_labels(busy: Parts) -> None:
    assert value(busy, "extproc_decisions_total", layer="reject", reason="unknown_model") == 1
    assert value(busy, "extproc_outcomes_total", backend="vllm-1", result="ok") == 1
    assert value(busy, "extproc_outcomes_total", backend="vllm-1", result="connect") == 1
    assert value(busy, "extproc_scrapes_total", backend="vllm-2", result="too_large") == 1
    assert value(busy, "extproc_models_accepted_total") == 1
    assert value(busy, "extproc_models_refused_total") == 1


def test_counters_grow_and_never_shrink(busy: Parts, sample_with: SampleWith) -> None:
    before = _counters(busy)
    let_everything_happen(busy, sample_with)
    after = _counters(busy)
    assert before.keys() <= after.keys()
    assert all(after[key] >= count for key, count in before.items())
    assert {key[0] for key, count in before.items() if after[key] > count} == {name for name, _ in before}


def _counters(parts: Parts) -> dict[Series, float]:
    """Without those of the process, which grow as the kernel likes."""
    ours = [metric for metric in exposition(parts) if not metric.name.startswith("extproc_process_")]
    return series([metric for metric in ours if metric.type in {"counter", "histogram"}])


def test_ttft_is_a_histogram_that_adds_up(parts: Parts, sample_with: SampleWith) -> None:
    for ttft_s in (0.05, 0.051, 0.8, 99.0, 101.0):
        parts.core.feedback.counts.count(sample_with(backend="vllm-1", ttft_s=ttft_s))
    found = {
        dict(labels)["le"]: count
        for (name, labels), count in series(exposition(parts)).items()
        if name == "extproc_ttft_seconds_bucket"
    }
    assert [float(bound) for bound in found] == [*TTFT_BOUNDS_S, float("inf")]
    assert (found["0.05"], found["0.1"], found["1.0"], found["100.0"], found["+Inf"]) == (1, 2, 3, 4, 5)
    assert value(parts, "extproc_ttft_seconds_count", backend="vllm-1") == 5
    assert value(parts, "extproc_ttft_seconds_sum", backend="vllm-1") == pytest.approx(200.901)


def test_who_waits_and_has_waited_is_counted(holding: tuple[Parts, RequestQueue]) -> None:
    parts, room = holding
    assert value(parts, "extproc_queue_requests") == 0.0
    placed = [parts.place() for _ in range(2 * MAX_ACTIVE + 4)]
    assert (
        value(parts, "extproc_queue_requests") == value(parts, "extproc_queue_model_requests", model="m") == 3
    )
    assert placed[0].lease is not None
    placed[0].lease.end(parts.started_s + 0.3)
    room.advance(parts.started_s + 5.0)
    endings = {"let_in": 1, "timeout": 2, "full": 1, "displaced": 0, "client_left": 0}
    for ending, count in endings.items():
        assert value(parts, "extproc_queue_ended_total", ending=ending) == count
    assert value(parts, "extproc_queue_wait_seconds_bucket", le="0.25") == 0
    assert value(parts, "extproc_queue_wait_seconds_bucket", le="0.5") == 1
    assert value(parts, "extproc_queue_wait_seconds_sum") == pytest.approx(0.3)
    assert value(parts, "extproc_decisions_total", layer="reject", reason="queue_full") == 1


def test_a_backend_that_left_is_in_no_label(busy: Parts, runner: asyncio.Runner) -> None:
    async def follow() -> None:
        busy.scraper.follow()
        await busy.scraper.stop()

    assert _backends(busy) == {"vllm-1", "vllm-2"}
    members = busy.core.set_members(BACKENDS[1:], busy.started_s) or busy.core.registry.members
    for backend in members:
        while backend.own:
            backend.release(busy.started_s)
    assert busy.core.advance(busy.started_s + SETTLE_S)
    runner.run(follow())
    assert _backends(busy) == {"vllm-2"}


def _backends(parts: Parts) -> set[str]:
    labels = [dict(labels) for _, labels in series(exposition(parts))]
    return {found["backend"] for found in labels if "backend" in found}


def test_a_backend_that_moves_has_one_series_that_of_its_present_address(parts: Parts) -> None:
    for _ in range(2):
        parts.backend("vllm-1").reserve(parts.started_s)
    for port in (3, 4):
        parts.core.set_members([replace(BACKENDS[0], port=port), BACKENDS[1]], parts.started_s)
    assert len(parts.core.registry.members) == 4
    assert value(parts, "extproc_backend_own_requests", backend="vllm-1") == 0.0
    parts.core.set_members(BACKENDS, parts.started_s)
    assert value(parts, "extproc_backend_own_requests", backend="vllm-1") == 2.0, "it has come back"


def test_the_store_is_counted_where_there_is_one(
    parts: Parts, sample_with: SampleWith, tmp_path: Path
) -> None:
    assert value(parts, "extproc_samples_written_total") is None
    store = SampleStore.open(tmp_path / "samples.sqlite", max_rows=100, later=lambda *_: None)
    parts.runtime = replace(parts.runtime, samples=store)
    store.append(sample_with())
    store.append(sample_with(token_limit=2**70))
    store.close()
    assert value(parts, "extproc_samples_written_total") == 1
    assert value(parts, "extproc_samples_dropped_total") == 1
    assert value(parts, "extproc_sample_batches_retried_total") == 0
