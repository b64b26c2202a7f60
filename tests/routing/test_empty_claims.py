"""Long prompts that come to nothing again and again keep no server from others."""

import pytest
from support.build import a_core, a_request, core_rules, endpoints, fleet_rules

from extproc.exchange.messages import Phase, RouteTo
from extproc.outcomes.outcome import LogEntry
from extproc.request.body_facts import InputSize
from extproc.request.request import Request
from extproc.routing.core import Core
from extproc.routing.empty_claims import FEW, MAX_NOTES, EmptyClaims

LEFT = frozenset({"DC"})
GIANT = 100_000
TEXT, MEDIA = InputSize(text_bytes=4 * GIANT), InputSize(media_tokens=GIANT)


RULES = core_rules(fleet_rules(max_active=100))


@pytest.fixture
def core() -> Core:
    return a_core(endpoints(1), RULES)


def giant(number: int = 0, tenant: str = "", size: InputSize = TEXT) -> Request:
    return a_request(input_tokens=GIANT, input_size=size, body_bytes=90_000 + number, tenant=tenant)


def ask(
    core: Core, request: Request, *, lasts_s: float = 0.1, is_left: bool = True, status: int = 200
) -> float:
    """Have a request placed and ended; return the seconds that others would have waited for meanwhile."""
    placement = core.place(request, Phase.REQUEST_BODY, 1.0)
    assert isinstance(placement.instruction, RouteTo)
    assert placement.lease is not None
    (backend,) = core.registry.members
    ahead_s = backend.prefilled_at_s - 1.0
    placement.lease.end(1.0 + lasts_s)
    flags, tags = (LEFT, {}) if is_left and status == 200 else (frozenset(), {"ttft_us": "50000"})
    metadata = placement.instruction.metadata
    core.learn(LogEntry(0.0, lasts_s, status, 1, flags, 0, metadata, tags), 1.0 + lasts_s)
    assert backend.prefilled_at_s <= 1.0 + lasts_s
    return ahead_s


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("tenant", ["", "hostile"])
def test_giants_that_are_left_at_once_are_soon_believed_no_more(core: Core, number: int, tenant: str) -> None:
    waits_s = [ask(core, giant(number * at, tenant)) for at in range(FEW + 3)]
    assert min(waits_s[:FEW]) > 2
    is_known = number == 0 or tenant
    assert max(waits_s[FEW:]) < 0.5 if is_known else min(waits_s) > 2, "others are told apart by nothing"
    assert ask(core, giant(7, "another")) > 2


def test_one_that_is_computed_is_believed_again(core: Core) -> None:
    for _ in range(FEW):
        ask(core, giant())
    assert ask(core, giant(), is_left=False) < 0.5
    assert ask(core, giant()) > 2


def test_clients_that_lose_patience_are_believed(core: Core) -> None:
    assert min(ask(core, giant(), lasts_s=30.0) for _ in range(2 * FEW)) > 2


def test_giants_that_a_server_refuses_after_a_while_are_believed_no_more(core: Core) -> None:
    """It fetches the media of a prompt, for seconds, before it finds that it cannot compute it."""
    waits_s = [ask(core, giant(at, "hostile"), lasts_s=5.0, status=400) for at in range(FEW + 3)]
    assert min(waits_s[:FEW]) > 2
    assert max(waits_s[FEW:]) < 0.5


def test_a_giant_is_believed_no_more_where_it_is_tried_again_either() -> None:
    core = a_core(endpoints(2), RULES)
    waits_s = []
    for _ in range(FEW + 3):
        placement = core.place(giant(), Phase.REQUEST_BODY, 1.0)
        assert isinstance(placement.instruction, RouteTo)
        assert placement.lease is not None
        first = placement.instruction.metadata["backend"]
        (second,) = (each for each in core.registry.members if each.name != first)
        sent = {"retry_stage": "UpstreamPoolReady", "retry_first": first, "retry_second": second.name}
        core.learn(LogEntry(0.0, None, 0, 2, frozenset(), 0, {}, sent), 1.0)
        waits_s.append(second.prefilled_at_s - 1.0)
        placement.lease.end(1.1)
        core.learn(LogEntry(0.0, 0.1, 400, 2, frozenset(), 0, placement.instruction.metadata, {}), 1.1)
    assert min(waits_s[:FEW]) > 2
    assert max(waits_s[FEW:]) < 0.5


def test_of_an_unknown_client_media_that_are_refused_are_told_from_other_prompts(core: Core) -> None:
    waits_s = [ask(core, giant(at, size=MEDIA), lasts_s=5.0, status=400) for at in range(FEW + 3)]
    assert min(waits_s[:FEW]) > 2
    assert max(waits_s[FEW:]) < 0.5
    assert min(ask(core, giant(10)), ask(core, giant(11, "another", MEDIA))) > 2
    assert ask(core, giant(12, size=MEDIA), is_left=False) < 0.5
    assert ask(core, giant(13, size=MEDIA)) > 2


def test_prompts_that_find_no_room_are_believed(core: Core) -> None:
    assert min(ask(core, giant(), lasts_s=5.0, status=429) for _ in range(2 * FEW)) > 2


def test_what_is_noted_is_bounded() -> None:
    claims = EmptyClaims()
    for number in range(2 * MAX_NOTES):
        claims.ended(giant(number), is_computed=False, is_refused=False, in_flight_s=0.1)
    assert len(claims) == MAX_NOTES
