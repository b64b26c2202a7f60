"""Documents of `/v1/state`, for those that read them."""

from typing import Any

from msgspec.structs import replace

from extproc.adapters.http.fleet_state import BackendStatus, FleetState, ModelStatus
from extproc.outcomes.traffic_window import ServerWindow, TrafficWindow

_BACKEND = BackendStatus(
    name="vllm-1",
    address="10.0.0.11:8000",
    models=["m"],
    own=5,
    foreign=2.0,
    load=7.0,
    running=6.0,
    waiting=1.0,
    num_running=6.5,
    kv_cache_fraction=0.314,
    scrape_age_s=0.04,
    is_fresh=True,
    zone="low",
    medium_load=16.0,
    max_active=100,
    waits_above=None,
    prompts_ahead_s=0.0,
    membership="active",
    is_routable=True,
    reason="ok",
    predicted_ttft_s=0.414,
    expected_s=0.5,
    observed_ttft_s=12.3,
    running_error=0.1,
    is_model_trusted=True,
    limit=100.0,
    terms_s={"own_prompt_s": 0.2, "prompts_ahead_s": 0.3, "turns_s": 0.0},
    last_minute=ServerWindow(results={"ok": 30, "reset": 2}, failed=2, ttft_p50_s=1.5, ttft_p99_s=12.3),
    since_start=ServerWindow(results={"ok": 300, "reset": 2}, failed=2, ttft_p50_s=0.5, ttft_p99_s=9.0),
)
LAST_MINUTE = TrafficWindow(
    seconds=60.0,
    decisions={"least_load.low_zone": 32, "reject.saturated": 8},
    results={"ok": 30, "reset": 2},
    failed=2,
    failed_open=3,
    ttft_p50_s=1.5,
    ttft_p99_s=12.3,
    client_ttft_p50_s=2.5,
    client_ttft_p99_s=None,
)
_STATE = FleetState(
    backends=[],
    model=None,
    decisions={"guard": 31, "predict": 25, "least_load": 74, "reject": 1},
    reasons={"predict.smallest_ttft": 25, "least_load.low_zone": 74, "reject.saturated": 1},
    passed_through=0,
    queue=None,
    draining=False,
)
MODEL_STATUS = ModelStatus(
    version="v7",
    trained_at="2026-11-22T10:00:00+00:00",
    promised_error=0.1,
    median_relative_error=0.118,
    accepted=1,
    refused=0,
    last_refusal=None,
)


def backend_status(**fields: Any) -> BackendStatus:
    """A busy backend that is well, with some fields changed."""
    return replace(_BACKEND, **fields)


def fleet_state(*backends: BackendStatus, **fields: Any) -> FleetState:
    """These backends and some decisions, with some fields changed."""
    return replace(_STATE, backends=list(backends), **fields)
