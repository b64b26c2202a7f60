import json
from typing import Any

import pytest
from adapters.running_parts import (
    BACKENDS,
    MAX_ACTIVE,
    PAUSE_S,
    SETTLE_S,
    SHIPPED_MODEL,
    STALE_AFTER_S,
    Parts,
    with_parts,
)

from extproc.adapters.state_document import state_document
from extproc.fleet.backend import Backend

BACKEND_FIELDS = {
    *("name", "address", "models", "own", "foreign", "load", "running", "waiting", "kv_cache_fraction"),
    *("scrape_age_s", "zone", "is_routable", "reason", "predicted_ttft_s", "observed_ttft_s"),
}
"""What tools may rely on."""


def document(parts: Parts, after_s: float = 0.0) -> dict[str, Any]:
    """The state so long after the start, as a client reads it: a NaN would be refused here."""
    state = state_document(parts.runtime, parts.started_s + after_s)
    read: dict[str, Any] = json.loads(json.dumps(state, allow_nan=False))
    return read


def backend(parts: Parts, after_s: float = 0.0) -> dict[str, Any]:
    """What is said of `vllm-1`."""
    (found,) = (one for one in document(parts, after_s)["backends"] if one["name"] == "vllm-1")
    return dict(found)


def test_every_promised_field_is_there() -> None:
    async def scenario(parts: Parts) -> None:
        state = document(parts)
        assert state.keys() >= {"backends", "model", "decisions", "draining"}
        assert state["decisions"] == {"guard": 0, "predict": 0, "least_load": 0, "reject": 0}
        assert [one["name"] for one in state["backends"]] == ["vllm-1", "vllm-2"]
        assert all(one.keys() >= BACKEND_FIELDS for one in state["backends"])

    with_parts(scenario)


def test_what_is_not_known_is_null() -> None:
    async def scenario(parts: Parts) -> None:
        parts.registry.apply([Backend("vllm-1", "::1", 8000)], parts.started_s)
        found = {name for name, value in backend(parts).items() if value is None}
        assert found == {
            *("models", "running", "waiting", "kv_cache_fraction", "scrape_age_s"),
            *("predicted_ttft_s", "observed_ttft_s", "running_error"),
        }
        assert backend(parts)["address"] == "[::1]:8000"
        assert document(parts)["model"] is None

    # The backend moves to another address, so that the document has both.
    with_parts(_of_the_new_one(scenario))


def test_a_scrape_is_shown_with_its_age() -> None:
    async def scenario(parts: Parts) -> None:
        parts.scrape(running=2.0, waiting=1.0, kv_cache_fraction=0.25)
        found = backend(parts, after_s=0.5)
        assert (found["running"], found["waiting"], found["kv_cache_fraction"]) == (2.0, 1.0, 0.25)
        assert found["scrape_age_s"] == pytest.approx(0.5)
        assert (found["own"], found["foreign"], found["load"]) == (0, 3.0, 3.0)

    with_parts(scenario)
