import asyncio
import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from support.busy_parts import SampleWith
from support.running_parts import (
    BACKENDS,
    MAX_ACTIVE,
    PAUSE_S,
    SETTLE_S,
    SHIPPED_MODEL,
    STALE_AFTER_S,
    Parts,
)

import extproc
from extproc.adapters.http.fleet_state import FleetState
from extproc.adapters.http.state_document import state_document
from extproc.adapters.vllm.exposition import MAX_GAUGE
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.pace import Pace
from extproc.routing.queue.request_queue import RequestQueue

BACKEND_FIELDS = {
    *("name", "address", "models", "own", "foreign", "load", "running", "waiting", "kv_cache_fraction"),
    *("scrape_age_s", "zone", "is_routable", "reason", "predicted_ttft_s", "observed_ttft_s"),
}
"""What the commands, the live page and everybody's tools rely on."""


def document(parts: Parts, after_s: float = 0.0) -> dict[str, Any]:
    """The state so long after the start, as a client reads it; a NaN has no JSON."""
    state = state_document(parts.runtime, parts.started_s + after_s)
    json.dumps(msgspec.to_builtins(state), allow_nan=False)
    read: dict[str, Any] = json.loads(msgspec.json.encode(state))
    return read


def backend(parts: Parts, after_s: float = 0.0) -> dict[str, Any]:
    """What is said of `vllm-1`."""
    found: dict[str, Any] = document(parts, after_s)["backends"][0]
    assert found["name"] == "vllm-1"
    return found


def test_every_promised_field_is_there(parts: Parts) -> None:
    state = document(parts)
    assert state.keys() >= {"backends", "model", "decisions", "draining"}
    assert state["decisions"] == {"guard": 0, "predict": 0, "least_load": 0, "reject": 0}
    assert [one["name"] for one in state["backends"]] == ["vllm-1", "vllm-2"]
    assert all(one.keys() >= BACKEND_FIELDS for one in state["backends"])


def test_unknown_values_of_a_new_backend_are_null(parts: Parts) -> None:
    parts.core.set_members([Endpoint("vllm-3", "::1", 8000)], parts.started_s)
    newcomer = document(parts)["backends"][-1]
    assert {name for name, value in newcomer.items() if value is None} == {
        *("models", "running", "waiting", "kv_cache_fraction", "scrape_age_s", "waits_above"),
        *("predicted_ttft_s", "observed_ttft_s", "running_error", "plain_error", "is_model_trusted"),
        "outcome_age_s",
    }
    assert (newcomer["name"], newcomer["address"], newcomer["load"]) == ("vllm-3", "[::1]:8000", 0.0)


def test_a_scrape_is_shown_with_its_age(parts: Parts) -> None:
    parts.scrape(running=2.0, waiting=1.0, kv_cache_fraction=0.25)
    found = backend(parts, after_s=0.5)
    assert (found["running"], found["waiting"], found["kv_cache_fraction"]) == (2.0, 1.0, 0.25)
    assert found["scrape_age_s"] == pytest.approx(0.5)
    assert (found["own"], found["foreign"], found["load"]) == (0, 3.0, 3.0)


def test_a_stale_scrape_is_shown_but_does_not_count_as_load(parts: Parts) -> None:
    parts.scrape(running=2.0, waiting=1.0)
    found = backend(parts, after_s=STALE_AFTER_S + 0.1)
    assert (found["running"], found["waiting"]) == (2.0, 1.0)
    assert (found["foreign"], found["load"]) == (0.0, 0.0)


def test_a_server_without_a_kv_cache_gauge_has_null_there(parts: Parts) -> None:
    parts.scrape(kv_cache_fraction=None)
    found = backend(parts)
    assert found["kv_cache_fraction"] is None
    assert found["running"] == 3.0


def test_own_requests_count_at_once(parts: Parts) -> None:
    for _ in range(3):
        parts.backend().reserve(parts.started_s)
    found = backend(parts)
    assert (found["own"], found["foreign"], found["load"]) == (3, 0.0, 3.0)
    assert isinstance(found["own"], int)


def test_models_are_named_in_order(parts: Parts) -> None:
    backends = [replace(BACKENDS[0], models=frozenset({"b", "a", "c"}))]
    parts.core.set_members(backends, parts.started_s)
    assert backend(parts)["models"] == ["a", "b", "c"]


def reason(parts: Parts, after_s: float = 0.0) -> tuple[str, bool]:
    found = backend(parts, after_s)
    return found["reason"], found["is_routable"]


def test_a_backend_without_faults_is_ok(parts: Parts) -> None:
    assert reason(parts) == ("ok", True)


def test_a_new_backend_is_joining_until_envoy_has_its_cluster(parts: Parts) -> None:
    parts.core.set_members([*BACKENDS, Endpoint("vllm-3", "127.0.0.1", 3)], parts.started_s)
    newcomer = document(parts)["backends"][-1]
    assert (newcomer["reason"], newcomer["is_routable"]) == ("joining", False)
    parts.core.advance(parts.started_s + SETTLE_S)
    newcomer = document(parts)["backends"][-1]
    assert (newcomer["reason"], newcomer["is_routable"]) == ("ok", True)


def test_a_departing_backend_is_draining_until_it_is_gone(parts: Parts) -> None:
    parts.core.set_members(BACKENDS[1:], parts.started_s)
    assert reason(parts) == ("draining", False)
    parts.core.advance(parts.started_s + SETTLE_S)
    assert [one["name"] for one in document(parts)["backends"]] == ["vllm-2"]


def test_a_backend_that_fails_is_probed_after_its_pause_by_one_request(parts: Parts) -> None:
    parts.fail()
    assert reason(parts) == ("failing", False)
    assert reason(parts, after_s=PAUSE_S) == ("probing", True)
    parts.backend().reserve(parts.started_s + PAUSE_S)
    assert reason(parts, after_s=PAUSE_S) == ("failing", False), "no second probe beside the first"
    parts.backend().breaker.succeed(parts.started_s + PAUSE_S)
    assert reason(parts, after_s=PAUSE_S) == ("ok", True)


def test_a_full_backend_is_saturated_until_it_has_drained(parts: Parts) -> None:
    for _ in range(MAX_ACTIVE):
        parts.backend().reserve(parts.started_s)
    assert reason(parts) == ("saturated", False)
    assert backend(parts)["zone"] == "saturated"
    for _ in range(MAX_ACTIVE - 2):
        parts.backend().release(parts.started_s)
    assert reason(parts) == ("ok", True)
    assert backend(parts)["zone"] == "low"


def test_a_full_backend_is_not_probed(parts: Parts) -> None:
    parts.fail()
    for _ in range(MAX_ACTIVE):
        parts.backend("vllm-1").reserve(parts.started_s)
        parts.backend("vllm-1").breaker.fail(parts.started_s)
    assert reason(parts, after_s=10 * PAUSE_S) == ("saturated", False)


def test_the_reason_agrees_with_the_backends_that_are_chosen(parts: Parts) -> None:
    parts.fail("vllm-2")
    for _ in range(MAX_ACTIVE + 1):
        routable = {one["name"] for one in document(parts)["backends"] if one["is_routable"]}
        lease = parts.place().lease
        assert routable == ({"vllm-1"} if lease else set())
    assert document(parts)["decisions"]["reject"] == 1


def test_the_age_of_what_was_learned_is_that_of_the_last_outcome(parts: Parts) -> None:
    known = parts.backend()
    known.reserve(parts.started_s)
    assert backend(parts, after_s=1.0)["outcome_age_s"] is None
    known.release(parts.started_s + 2.0)
    assert backend(parts, after_s=5.0)["outcome_age_s"] == pytest.approx(3.0)


def test_an_observed_ttft_is_shown(parts: Parts) -> None:
    parts.backend().observed(0.3)
    assert backend(parts)["observed_ttft_s"] == pytest.approx(0.3)


def test_the_model_in_use_is_described(parts: Parts) -> None:
    parts.offer_shipped_model()
    model = document(parts)["model"]
    manifest = json.loads(SHIPPED_MODEL.read_text())["manifest"]
    assert (model["version"], model["trained_at"]) == (manifest["model_version"], manifest["trained_at"])
    assert model["median_relative_error"] == manifest["held_out_errors"]["median_relative_error"]
    assert (model["accepted"], model["refused"], model["last_refusal"]) == (1, 0, None)


def test_a_refused_model_is_shown_and_leaves_the_one_in_use(parts: Parts) -> None:
    parts.offer_shipped_model()
    before = document(parts)["model"]
    parts.offer_model(b"no model")
    after = document(parts)["model"]
    assert (after["version"], after["refused"]) == (before["version"], 1)
    assert "not a whole model file" in after["last_refusal"]


def queue(parts: Parts) -> None:
    """Have `vllm-1` be slow enough for its medium zone."""
    parts.scrape(running=3.0, waiting=0.0, kv_cache_fraction=0.01)
    parts.backend().pace = Pace(base_s=2.0)


def test_the_corrected_estimate_is_shown_where_the_model_is_asked(parts: Parts) -> None:
    queue(parts)
    assert backend(parts)["predicted_ttft_s"] is None, "there is no model"
    parts.offer_shipped_model()
    assert backend(parts)["predicted_ttft_s"] > 0
    assert document(parts)["backends"][1]["predicted_ttft_s"] is None, "it has not been scraped"
    assert backend(parts, after_s=STALE_AFTER_S + 0.1)["predicted_ttft_s"] is None


def test_the_model_predicts_nothing_in_the_low_zone(parts: Parts) -> None:
    parts.offer_shipped_model()
    parts.scrape(running=0.0, waiting=0.0, kv_cache_fraction=0.01)
    assert (backend(parts)["zone"], backend(parts)["predicted_ttft_s"]) == ("low", None)


def test_decisions_are_counted_by_layer_and_reason(parts: Parts) -> None:
    for _ in range(2 * MAX_ACTIVE + 1):
        parts.place()
    parts.place(model="nobody's")
    state = document(parts)
    assert state["decisions"]["least_load"] == 2 * MAX_ACTIVE
    assert state["decisions"]["reject"] == 2
    assert state["decisions"]["guard"] > 0
    assert state["reasons"] == {
        "least_load.low_zone": 2 * MAX_ACTIVE,
        "reject.saturated": 1,
        "reject.unknown_model": 1,
    }


def test_requests_left_to_envoys_pool_are_counted_apart_from_decisions(parts: Parts) -> None:
    parts.core.set_members([Endpoint("vllm-3", "127.0.0.1", 3)], parts.started_s)
    parts.place()
    state = document(parts)
    assert (state["passed_through"], sum(state["decisions"].values())) == (1, 0)


def test_the_queue_is_null_when_requests_are_not_held(parts: Parts) -> None:
    assert document(parts)["queue"] is None


def test_waiting_requests_are_shown_by_model_and_age(holding: tuple[Parts, RequestQueue]) -> None:
    parts, room = holding
    assert document(parts)["queue"] == {"waiting": 0, "by_model": {}, "oldest_s": 0.0, "ended": {}}
    placed = [parts.place() for _ in range(2 * MAX_ACTIVE + 3)]
    queue = document(parts, after_s=1.5)["queue"]
    assert (queue["waiting"], queue["by_model"]) == (3, {"m": 3})
    assert queue["oldest_s"] == pytest.approx(1.5)
    assert placed[0].lease is not None
    placed[0].lease.end(parts.started_s + 2.0)
    room.advance(parts.started_s + 6.0)
    assert document(parts)["queue"]["ended"] == {"let_in": 1, "timeout": 2}


def test_draining_is_shown(parts: Parts, runner: asyncio.Runner) -> None:
    runner.run(parts.server.start())
    assert document(parts)["draining"] is False
    runner.run(parts.server.drain())
    assert document(parts)["draining"] is True


def test_reading_the_document_changes_nothing(parts: Parts) -> None:
    parts.offer_shipped_model()
    parts.scrape(kv_cache_fraction=0.01)
    parts.fail("vllm-2")
    assert document(parts, after_s=PAUSE_S) == document(parts, after_s=PAUSE_S)
    assert document(parts) == document(parts)


def test_an_empty_fleet_has_a_document(parts: Parts) -> None:
    parts.offer_shipped_model()
    parts.core.set_members([], parts.started_s)
    parts.core.advance(parts.started_s + SETTLE_S)
    assert document(parts)["backends"] == []


def test_whether_the_model_has_a_say_is_shown_with_both_errors(parts: Parts) -> None:
    assert backend(parts)["is_model_trusted"] is None, "there is no model"
    parts.offer_shipped_model()
    model = parts.core.model.current
    assert model is not None
    assert backend(parts)["is_model_trusted"] is False, "it has to earn it"
    parts.predict(log_corrected=0.1, log_plain=0.4)
    shown = backend(parts)
    assert shown["is_model_trusted"] is True
    assert (shown["running_error"], shown["plain_error"]) == (pytest.approx(0.1), pytest.approx(0.4))
    assert document(parts)["model"]["promised_error"] == model.promised_error


def test_largest_gauges_that_a_server_may_report_give_a_document_that_can_be_read(parts: Parts) -> None:
    parts.offer_shipped_model()
    parts.scrape(running=MAX_GAUGE, waiting=MAX_GAUGE, kv_cache_fraction=1.0)
    found = backend(parts)
    assert (found["foreign"], found["zone"]) == (2 * MAX_GAUGE, "saturated")
    state = state_document(parts.runtime, parts.started_s)
    assert msgspec.json.decode(msgspec.json.encode(state), type=FleetState) == state


def test_the_terms_of_the_estimate_add_up_to_what_is_compared(parts: Parts) -> None:
    parts.backend().prefilled_at_s = parts.started_s + 2.0
    for _ in range(3):
        parts.place()
    for found in document(parts)["backends"]:
        assert sum(found["terms_s"].values()) == pytest.approx(found["expected_s"])
    assert backend(parts)["terms_s"]["prompts_ahead_s"] == pytest.approx(2.0)


def test_the_limit_is_that_of_the_queue_where_it_is_the_smaller_one(parts: Parts) -> None:
    assert backend(parts)["limit"] == MAX_ACTIVE
    parts.backend().closed_above = 1.5
    assert backend(parts)["limit"] == 2


def test_last_minute_and_since_the_start_have_what_was_counted(parts: Parts, sample_with: SampleWith) -> None:
    parts.place()
    parts.core.feedback.counts.count(sample_with(backend="vllm-1", failure="reset", ttft_s=None))
    parts.core.feedback.counts.failed_open += 2
    state = document(parts, after_s=3.0)
    for window in ("last_minute", "since_start"):
        traffic = state[window]
        assert (traffic["seconds"], traffic["failed_open"]) == (pytest.approx(3.0), 2)
        assert traffic["decisions"] == {"least_load.low_zone": 1} == state["reasons"]
        assert state["backends"][0][window]["results"] == {"reset": 1} == traffic["results"]
        assert (state["backends"][0][window]["failed"], traffic["failed"]) == (1, 1)
        assert state["backends"][1][window]["results"] == {}
    assert (state["version"], state["uptime_s"]) == (extproc.__version__, pytest.approx(3.0))
    assert any("reset" in symptom["text"] for symptom in state["symptoms"])


def test_a_model_is_shown_with_its_servers_and_those_that_it_wants(parts: Parts) -> None:
    for _ in range(2 * MAX_ACTIVE):
        parts.place()
    assert document(parts)["models"] == [{"name": "m", "servers": 2, "servers_wanted": 3, "waiting": 0}]
