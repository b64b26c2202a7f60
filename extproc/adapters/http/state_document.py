"""`/v1/state`: the fleet, the model and the decisions as one JSON document. What is not known is null."""

import math
from collections.abc import Sequence
from typing import Any

from extproc.adapters.http.runtime import Runtime
from extproc.fleet.backend import Lifecycle
from extproc.fleet.registry import Member
from extproc.fleet.view import Candidate, FleetView
from extproc.policy.predictive import forecast
from extproc.routing.queue.request_queue import RequestQueue

REFERENCE_TOKENS = 512
"""`predicted_ttft_s` and `expected_s` are about a request of this input length that came now; guessed."""


def state_document(runtime: Runtime, now_s: float) -> dict[str, Any]:
    """The state at `now_s` (monotonic seconds)."""
    members = runtime.registry.members
    view = runtime.fleet.view([member.slot for member in members], now_s)
    return {
        "backends": _backends(runtime, members, view),
        "model": _model(runtime),
        "decisions": runtime.decisions.by_layer(),
        "reasons": {
            f"{layer.value}.{reason.value}": count
            for (layer, reason), count in sorted(runtime.decisions.by_reason.items())
        },
        "passed_through": runtime.decisions.passed_through,
        "queue": None if runtime.room is None else _queue(runtime.room, now_s),
        "draining": runtime.server.is_draining,
    }


def _queue(room: RequestQueue, now_s: float) -> dict[str, Any]:
    return {
        "waiting": room.waiting,
        "by_model": room.depths(),
        "oldest_s": room.oldest_s(now_s),
        "ended": {ending.value: count for ending, count in sorted(room.counts.endings.items())},
    }


def _backends(runtime: Runtime, members: Sequence[Member], view: FleetView) -> list[dict[str, Any]]:
    admitting = frozenset(view.admitting())
    predicted_s = _predicted_s(runtime, view)
    expected_s = view.expected_s(range(len(members)), REFERENCE_TOKENS)
    return [
        _backend(
            runtime,
            member,
            view.candidate(position),
            reason=_reason(runtime, member, position in admitting, view.has_room(position)),
            is_fresh=view.is_fresh(position),
            predicted_s=predicted_s.get(position),
            expected_s=expected_s[position],
        )
        for position, member in enumerate(members)
    ]


def _backend(
    runtime: Runtime,
    member: Member,
    known: Candidate,
    *,
    reason: str,
    is_fresh: bool,
    predicted_s: float | None,
    expected_s: float,
) -> dict[str, Any]:
    state = runtime.fleet.states[member.slot]
    is_scraped = known.scrape_age_s is not None
    return {
        "name": member.backend.name,
        "address": member.backend.address,
        "models": None if member.models is None else sorted(member.models),
        "own": int(known.own),
        "foreign": known.foreign,
        "load": known.load,
        "running": state.running if is_scraped else None,
        "waiting": state.waiting if is_scraped else None,
        "num_running": known.num_running,
        "kv_cache_fraction": _finite(state.kv_cache_fraction),
        "scrape_age_s": known.scrape_age_s,
        "is_fresh": is_fresh,
        "zone": known.zone,
        "medium_load": state.medium_load,
        "max_active": state.max_active,
        "waits_above": _finite(state.waits_above),
        "membership": member.membership.value,
        "is_routable": reason in {"ok", "probing"},
        "reason": reason,
        "predicted_ttft_s": predicted_s,
        "expected_s": expected_s,
        "observed_ttft_s": _finite(state.observed_ttft_s),
        "running_error": runtime.record.error(member.slot),
        "is_model_trusted": _is_model_trusted(runtime, member.slot),
    }


def _is_model_trusted(runtime: Runtime, slot: int) -> bool | None:
    """Whether layer 2 has a say about the backend, as far as its running error goes; None without a model."""
    model = runtime.models.current
    if model is None:
        return None
    return runtime.record.is_trusted(slot, model.promised_error)


def _reason(runtime: Runtime, member: Member, is_admitting: bool, has_room: bool) -> str:
    """Why a backend is or is not chosen: membership, then failures, then saturation."""
    if member.membership is not Lifecycle.ACTIVE:
        return member.membership.value
    if not is_admitting:
        return "failing"
    if not has_room:
        return "saturated"
    return "probing" if runtime.fleet.breakers.is_tripped(member.slot) else "ok"


def _predicted_s(runtime: Runtime, view: FleetView) -> dict[int, float]:
    """By position; nothing is said of the low zone, of which the model knows nothing."""
    model, everyone = runtime.models.current, range(len(view))
    if model is None:
        return {}
    asked = [position for position in everyone if not view.is_low(position)]
    said = forecast(view, asked, REFERENCE_TOKENS, model, runtime.record)
    return {position: prediction.ttft_s for position, prediction in said.predictions.items()}


def _model(runtime: Runtime) -> dict[str, Any] | None:
    model = runtime.models.current
    if model is None:
        return None
    manifest = model.manifest
    return {
        "version": manifest.model_version,
        "trained_at": manifest.trained_at,
        "promised_error": model.promised_error,
        "median_relative_error": manifest.held_out_errors.median_relative_error,
        "accepted": runtime.models.accepted,
        "refused": runtime.models.refused,
        "last_refusal": runtime.models.last_refusal,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
