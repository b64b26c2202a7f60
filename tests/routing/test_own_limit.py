"""A request's own limit of the wait, where requests are refused and not held: it harms no other request."""

from support.build import a_core, a_request, core_rules, endpoints, fleet_rules

from extproc.exchange.messages import Phase, Reject, RouteTo
from extproc.fleet.backend import Backend
from extproc.fleet.fleet_rules import WaitingRule
from extproc.routing.core import Core

NOW_S = 10.0
GUARD_S = 5.0


def a_fleet_with_waits(*waits_s: float) -> tuple[Core, list[Backend]]:
    """A core whose backends have this many seconds of prompts to compute."""
    rules = fleet_rules(max_active=50, waiting=WaitingRule(GUARD_S))
    core = a_core(endpoints(len(waits_s)), core_rules(rules))
    backends = list(core.registry.members)
    for backend, wait_s in zip(backends, waits_s, strict=True):
        backend.expect_prompt("one before", wait_s / backend.pace.token_s, NOW_S)
    return core, backends


def answer(core: Core, limit_s: float | None = None, tokens: int = 100) -> str:
    """The backend, or the reason of a refusal."""
    asked = a_request(wait_limit_s=limit_s, input_tokens=tokens)
    instruction = core.place(asked, Phase.REQUEST_BODY, NOW_S).instruction
    if isinstance(instruction, Reject):
        assert instruction.status == 503
        assert int(instruction.headers["retry-after"]) >= 1
        return instruction.headers["x-extproc-reason"]
    assert isinstance(instruction, RouteTo)
    return instruction.cluster


def test_a_request_that_would_be_late_everywhere_is_refused_and_others_are_not() -> None:
    core, _ = a_fleet_with_waits(2.0, 3.0)
    assert answer(core, limit_s=1.0) == "too_late"
    assert answer(core) == "vllm-1"
    assert answer(core, limit_s=2.5) == "vllm-1"


def test_only_a_backend_in_time_is_chosen() -> None:
    core, (_, slow) = a_fleet_with_waits(2.0, 0.0)
    slow.expect_prompt("its crowd", 0.5 / slow.pace.token_s, NOW_S)
    slow.own = 40  # dearer by its score
    assert answer(core, limit_s=1.0) == "vllm-2"


def test_a_long_prompt_is_not_refused_for_being_long() -> None:
    core, (backend,) = a_fleet_with_waits(0.0)
    assert backend.pace.token_s * 10**6 > 1.0
    assert answer(core, limit_s=0.1, tokens=10**6) == "vllm-1"


def test_a_patient_client_makes_no_queue_longer_than_the_guard_allows() -> None:
    core, _ = a_fleet_with_waits(GUARD_S + 1.0)
    assert answer(core, limit_s=60.0) == answer(core) == "wait_too_long"


def test_a_hundred_impatient_requests_leave_the_backends_open_for_others() -> None:
    core, (backend,) = a_fleet_with_waits(4.0)
    before = backend.closed_above
    assert {answer(core, limit_s=0.1) for _ in range(100)} == {"too_late"}
    assert (backend.closed_above, backend.own) == (before, 0)
    assert answer(core) == "vllm-1"


def test_a_failing_fleet_is_the_reason_also_where_a_request_has_a_limit() -> None:
    core, (backend,) = a_fleet_with_waits(0.0)
    for _ in range(3):
        backend.breaker.fail(NOW_S)
    assert answer(core, limit_s=1.0) == "failing"
