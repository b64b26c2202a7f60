from typing import Any

import pytest
from msgspec.structs import replace
from support.fleet_states import LAST_MINUTE, MODEL_STATUS, backend_status, fleet_state

from extproc.adapters.http.fleet_state import FleetState
from extproc.adapters.http.symptoms import symptoms

QUIET = replace(
    LAST_MINUTE, decisions={"least_load.low_zone": 100}, results={"ok": 99}, failed=0, failed_open=0
)


def said(state: FleetState) -> list[tuple[str, bool]]:
    return [(symptom.text, symptom.is_bad) for symptom in symptoms(state)]


def after(**traffic: Any) -> list[tuple[str, bool]]:
    return said(fleet_state(backend_status(), last_minute=replace(QUIET, **traffic)))


def out(reason: str, *names: str) -> list[Any]:
    return [backend_status(name=name, reason=reason, is_routable=False) for name in names]


def test_nothing_is_said_of_a_fleet_that_is_well() -> None:
    assert said(fleet_state(backend_status(), backend_status(name="b"), last_minute=QUIET)) == []


def test_a_failing_backend_is_named_and_is_bad() -> None:
    assert said(fleet_state(backend_status(), *out("failing", "b"))) == [
        ("Failing: b (1 of 2 backends).", True)
    ]


def test_of_many_backends_three_are_named_and_the_bad_ones_come_first() -> None:
    names = [f"b{number}" for number in range(1200)]
    assert said(fleet_state(backend_status(), *out("saturated", *names), *out("failing", "x"))) == [
        ("Failing: x (1 of 1202 backends).", True),
        ("Saturated: b0, b1, b2 and 1197 more (1200 of 1202 backends).", False),
    ]


def test_a_fleet_that_takes_no_request_is_one_finding_with_the_reasons() -> None:
    state = fleet_state(*out("saturated", "a", "b"), *out("failing", "c"))
    assert said(state) == [("No backend takes requests (2 saturated, 1 failing).", True)]
    assert said(fleet_state()) == [("No backend takes requests.", True)]


@pytest.mark.parametrize(("reason", "is_known"), [("joining", False), ("draining", False), ("ok", True)])
def test_unreadable_metrics_are_reported_of_members_alone(reason: str, is_known: bool) -> None:
    membership = "active" if reason == "ok" else reason
    stale = backend_status(name="b", membership=membership, reason=reason, is_fresh=False)
    expected = [("The metrics of b cannot be read.", False)] if is_known else []
    assert said(fleet_state(backend_status(), stale)) == expected


@pytest.mark.parametrize(("refused", "is_bad"), [(1, None), (2, False), (12, True)])
def test_refusals_are_judged_as_by_the_alerts(refused: int, is_bad: bool | None) -> None:
    decisions = {"least_load.low_zone": 100 - refused, "reject.saturated": refused}
    text = f"{refused}% of the requests of the last minute were refused ({refused} saturated)."
    assert after(decisions=decisions) == ([] if is_bad is None else [(text, is_bad)])


def test_refusals_that_clients_choose_are_listed_but_make_no_finding() -> None:
    assert after(decisions={"least_load.low_zone": 50, "reject.unknown_model": 50}) == []
    mixed = {"least_load.low_zone": 50, "reject.unknown_model": 40, "reject.saturated": 10}
    text = "50% of the requests of the last minute were refused (40 unknown_model, 10 saturated)."
    assert after(decisions=mixed) == [(text, False)]


def test_requests_that_failed_open_are_bad() -> None:
    text = "Envoy placed 1,234 requests of the last minute by itself: it failed open."
    assert after(failed_open=1234) == [(text, True)]


@pytest.mark.parametrize(("failed", "is_bad"), [(5, False), (6, True)])
def test_failures_are_reported_with_the_backend_that_has_most(failed: int, is_bad: bool) -> None:
    traffic = replace(QUIET, results={"ok": 100 - failed, "reset": failed}, failed=failed)
    calm = replace(backend_status().last_minute, failed=0)  # type: ignore[type-var]
    state = fleet_state(backend_status(name="sick"), backend_status(last_minute=calm), last_minute=traffic)
    text = f"{failed}.0% of the requests that ended in the last minute failed at a backend"
    assert said(state) == [(f"{text} ({failed} reset), most at sick.", is_bad)]


def test_draining_and_a_refused_model_are_reported() -> None:
    model = replace(MODEL_STATUS, last_refusal="checksum")
    assert said(fleet_state(backend_status(), draining=True, model=model)) == [
        ("The sidecar drains: it is about to end.", False),
        ("The newest model file is not in use: checksum", False),
    ]
