"""Says what is not as it should be: the first lines of the live page and of `extproc status`."""

from collections import Counter
from collections.abc import Iterator, Mapping

from extproc.adapters.http.fleet_state import BackendStatus, FleetState, Symptom
from extproc.outcomes.traffic_window import TrafficWindow
from extproc.policy.decision import Layer, Reason
from extproc.routing.counter_reading import FAILURES

_OWN_CHOICE = frozenset({Reason.UNKNOWN_MODEL, Reason.UNKNOWN_RESPONSE, Reason.TOO_LATE, Reason.CUT_OFF})
"""Refusals that the alert on refusals does not count: clients choose that."""
FEW_REFUSED, MANY_REFUSED = 0.01, 0.1
MANY_FAILED = 0.05
"""The bounds of the alerts."""
MAX_NAMES = 3


def symptoms(state: FleetState) -> list[Symptom]:
    """Return the symptoms that a state shows, the bad ones first."""
    found = [*_about_backends(state.backends), *_about_the_sidecar(state)]
    if state.last_minute is not None:
        found += _about_requests(state.last_minute)
        found += _about_failures(state.last_minute, state.backends)
    return sorted(found, key=lambda symptom: not symptom.is_bad)


def _about_backends(backends: list[BackendStatus]) -> Iterator[Symptom]:
    if not any(backend.is_routable for backend in backends):
        reasons = Counter(backend.reason for backend in backends)
        yield Symptom(text=f"No backend takes requests{_listed(reasons)}.", is_bad=True)
        return
    for reason in ("failing", "saturated", "asleep"):
        names = [backend.name for backend in backends if backend.reason == reason]
        if names:
            text = f"{reason.capitalize()}: {_named(names)} ({len(names)} of {len(backends)} backends)."
            yield Symptom(text=text, is_bad=reason == "failing")
    names = [each.name for each in backends if each.membership == "active" and not each.is_fresh]
    if names:
        yield Symptom(text=f"The metrics of {_named(names)} cannot be read.", is_bad=False)


def _about_requests(traffic: TrafficWindow) -> Iterator[Symptom]:
    refused = {
        reason: count
        for key, count in traffic.decisions.items()
        for layer, _, reason in (key.partition("."),)
        if layer == Layer.REJECT
    }
    unwanted = {reason: count for reason, count in refused.items() if reason not in _OWN_CHOICE}
    if (share := _share(unwanted, traffic.decisions)) > FEW_REFUSED:
        text = f"{_share(refused, traffic.decisions):.0%} of the requests of the last minute were refused"
        yield Symptom(text=f"{text}{_listed(refused)}.", is_bad=share > MANY_REFUSED)
    if traffic.failed_open:
        text = f"Envoy placed {traffic.failed_open:,} requests of the last minute by itself: it failed open."
        yield Symptom(text=text, is_bad=True)


def _about_failures(traffic: TrafficWindow, backends: list[BackendStatus]) -> Iterator[Symptom]:
    failed = {name: count for name, count in traffic.results.items() if name in FAILURES}
    if not failed:
        return
    share = _share(failed, traffic.results)
    failures = {each.name: each.last_minute.failed for each in backends if each.last_minute is not None}
    worst = max(failures, key=failures.__getitem__, default="")
    where = f", most at {worst}" if failures.get(worst) else ""
    text = f"{share:.1%} of the requests that ended in the last minute failed at a backend"
    yield Symptom(text=f"{text}{_listed(failed)}{where}.", is_bad=share > MANY_FAILED)


def _about_the_sidecar(state: FleetState) -> Iterator[Symptom]:
    if state.draining:
        yield Symptom(text="The sidecar drains: it is about to end.", is_bad=False)
    if state.model is not None and state.model.last_refusal:
        text = f"The newest model file is not in use: {state.model.last_refusal}"
        yield Symptom(text=text, is_bad=False)


def _share(part: Mapping[str, int], whole: Mapping[str, int]) -> float:
    return sum(part.values()) / max(1, sum(whole.values()))


def _listed(counts: Mapping[str, int]) -> str:
    in_order = sorted(counts.items(), key=lambda item: -item[1])
    return f" ({', '.join(f'{count:,} {name}' for name, count in in_order)})" if counts else ""


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
