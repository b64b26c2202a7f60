"""The metrics of each backend, made of its status in the state of the sidecar."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric

from extproc.adapters.http.fleet_state import REFERENCE_TOKENS, BackendStatus
from extproc.adapters.http.metric_families import gauges
from extproc.fleet.backend import Lifecycle

# By field of `BackendStatus`.
_GAUGES = {
    "own": ("extproc_backend_own_requests", "Requests in flight that this sidecar sent"),
    "foreign": ("extproc_backend_foreign_requests", "Requests that others sent, as far as known"),
    "load": ("extproc_backend_load_requests", "own + foreign"),
    "max_active": ("extproc_backend_max_active_requests", "Load from which on it takes no more requests"),
    "waits_above": (
        "extproc_backend_waits_above_requests",
        "Load above which one more would wait too long in its queue; no series where there is no such queue",
    ),
    "prompts_ahead_s": (
        "extproc_backend_prompts_ahead_seconds",
        "Time for the prompts that were sent there and are not computed yet",
    ),
    "num_running": ("extproc_backend_running_requests", "Estimate of the running requests for now"),
    "kv_cache_fraction": ("extproc_backend_kv_cache_fraction", "Share of the KV cache in use, 0 to 1"),
    "scrape_age_s": ("extproc_backend_scrape_age_seconds", "Age of the last good scrape"),
    "is_fresh": ("extproc_backend_signals_fresh", "1 if the last good scrape is young enough to count"),
    "is_routable": ("extproc_backend_routable", "1 if the backend may be chosen"),
    "predicted_ttft_s": (
        "extproc_backend_predicted_ttft_seconds",
        f"Prediction for a request of {REFERENCE_TOKENS} tokens that came now",
    ),
    "expected_s": (
        "extproc_backend_expected_seconds",
        f"What layer 3 compares, for a request of {REFERENCE_TOKENS} tokens: load, at the backend's pace",
    ),
    "outcome_age_s": (
        "extproc_backend_outcome_age_seconds",
        "Time since the last request of this sidecar there ended, by which estimates are learned",
    ),
    "observed_ttft_s": ("extproc_backend_observed_ttft_seconds", "Moving average of the observed TTFT"),
    "running_error": (
        "extproc_backend_prediction_error",
        "Running absolute log error of the estimate as the model corrects it",
    ),
    "plain_error": (
        "extproc_backend_estimate_error",
        "Running absolute log error of the plain estimate, for the same requests",
    ),
    "is_model_trusted": (
        "extproc_backend_model_trusted",
        "1 if the model corrects the estimate, 0 if the plain estimate predicts as well",
    ),
}
_ENUMS = {
    "zone": ("extproc_backend_zone", "zone", "1 for the zone it is in"),
    "reason": (
        "extproc_backend_state",
        "state",
        "1 for why it may be chosen (ok, probing) or may not (saturated, asleep, failing, joining, draining)",
    ),
}


def backend_metrics(statuses: Sequence[BackendStatus]) -> Iterator[Metric]:
    """Yield all of them, without a value that is not known: a NaN would spoil every sum."""
    backends = _one_per_name(statuses)
    for field, (name, documentation) in _GAUGES.items():
        found = [((backend.name,), getattr(backend, field)) for backend in backends]
        yield gauges(name, documentation, ["backend"], [pair for pair in found if pair[1] is not None])
    for field, (name, label, documentation) in _ENUMS.items():
        states = [((backend.name, getattr(backend, field)), 1.0) for backend in backends]
        yield gauges(name, documentation, ["backend", label], states)


def _one_per_name(backends: Sequence[BackendStatus]) -> list[BackendStatus]:
    """Keep one backend per name, so that no series comes twice: after a move, the one that stays."""
    leaving_first = sorted(backends, key=lambda backend: backend.membership != Lifecycle.DRAINING)
    return list({backend.name: backend for backend in leaving_first}.values())
