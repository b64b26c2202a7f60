import json
from dataclasses import replace

import pytest
from msgspec.structs import replace as replace_fields
from support.held_requests import FAILURES, MAX_ACTIVE, RULES, Clinic, request

from extproc.adapters.envoy.envoy_config import shipped_bootstrap
from extproc.config.stages import Config
from extproc.exchange.messages import Hold, Reject
from extproc.fleet.backend import Endpoint
from extproc.fleet.signals import Signals
from extproc.policy.decision import Layer, Reason
from extproc.routing.queue.queue_rules import QueueRules
from extproc.routing.queue.request_queue import HOLD_MARGIN_S, RETRY_S
from extproc.routing.queue.wait_counts import Ending


def serving(*models: str) -> list[Endpoint]:
    """A backend for each model."""
    return [
        Endpoint(f"vllm-{number}", "127.0.0.1", number, frozenset({model}))
        for number, model in enumerate(models, start=1)
    ]


@pytest.fixture
def clinic() -> Clinic:
    return Clinic(RULES)


def test_while_there_is_room_nobody_is_held(clinic: Clinic) -> None:
    clinic.fill()
    assert clinic.room.waiting == 0


def test_who_finds_no_room_is_held_for_longer_than_it_may_wait(clinic: Clinic) -> None:
    clinic.fill()
    client = clinic.arrive()
    assert client.answers == [Hold(RULES.max_wait_s + HOLD_MARGIN_S)]
    assert clinic.room.waiting == 1


def test_a_slot_that_is_given_back_goes_to_who_waited_longest(clinic: Clinic) -> None:
    placed = clinic.fill()
    first, second = clinic.arrive(), clinic.arrive()
    clinic.leave(placed[0])
    assert first.is_placed
    assert second.is_held
    assert clinic.own() == MAX_ACTIVE
    clinic.leave(first)
    assert second.is_placed


def test_a_backend_is_filled_up_to_its_limit_not_only_below_where_it_resumes(clinic: Clinic) -> None:
    placed = clinic.fill()
    clients = [clinic.arrive() for _ in range(10)]
    for client in [*placed, *clients[:-MAX_ACTIVE]]:
        clinic.leave(client)
        assert clinic.own() == MAX_ACTIVE


def test_who_arrives_while_others_wait_does_not_overtake_them(clinic: Clinic) -> None:
    placed = clinic.fill()
    held = clinic.arrive()
    clinic.fleet.states[clinic.slot()].own -= 1  # room that nobody was told of
    late = clinic.arrive()
    assert late.is_held
    clinic.wait(0.05)
    assert held.is_placed
    assert late.is_held
    assert placed[0].is_placed


def test_a_client_that_leaves_gives_its_place_up_at_once() -> None:
    clinic = Clinic(replace(RULES, max_waiting=1))
    placed = clinic.fill()
    gone = clinic.arrive()
    assert clinic.arrive().refusal == "queue_full"
    clinic.leave(gone)
    next_one = clinic.arrive()
    assert next_one.is_held
    clinic.leave(placed[0])
    assert next_one.is_placed
    assert gone.answers == [Hold(15.0)]
    assert clinic.room.counts.endings[Ending.CLIENT_LEFT] == 1


def test_when_the_deadline_passes_it_is_refused_as_without_a_queue(clinic: Clinic) -> None:
    clinic.fill()
    client = clinic.arrive()
    clinic.wait(9.99)
    assert client.is_held
    assert clinic.room.due_s(clinic.now_s) == pytest.approx(clinic.now_s + 0.01)
    clinic.wait(0.01)
    refusal = client.answers[-1]
    assert isinstance(refusal, Reject)
    assert refusal.status == 503
    assert int(refusal.headers["retry-after"]) >= 1
    assert refusal.headers["x-extproc-layer"] == "reject"
    assert json.loads(refusal.body)["error"]["type"] == "overloaded_error"
    assert clinic.router.counts.by_reason[Layer.REJECT, Reason.QUEUE_TIMEOUT] == 1
    assert clinic.room.due_s(clinic.now_s) == clinic.now_s + RETRY_S


def test_nobody_is_let_in_after_its_deadline_even_if_the_clock_is_late(clinic: Clinic) -> None:
    placed = clinic.fill()
    late = clinic.arrive()
    clinic.now_s += 5.0
    young = clinic.arrive()
    clinic.now_s += 6.0
    clinic.leave(placed[0])
    assert late.refusal == "queue_timeout"
    assert young.is_placed


def test_the_wait_that_a_refused_client_is_told_grows_with_those_who_wait() -> None:
    clinic = Clinic(replace(RULES, max_waiting=20))
    for _ in range(100):  # two requests a second
        clinic.now_s += 0.5
        clinic.leave(clinic.arrive())
    clinic.fill()
    for _ in range(20):
        assert clinic.arrive().is_held
    refusal = clinic.arrive().answers[-1]
    assert isinstance(refusal, Reject)
    assert 10 <= int(refusal.headers["retry-after"]) <= 12


def test_priorities_beyond_the_bounds_count_as_the_bounds() -> None:
    clinic = Clinic(replace(RULES, min_priority=0, max_priority=0))
    placed = clinic.fill()
    first, pushy = clinic.arrive(), clinic.arrive(request(priority=100))
    clinic.leave(placed[0])
    assert first.is_placed
    assert pushy.is_held


def test_low_priority_is_shed_first() -> None:
    clinic = Clinic(replace(RULES, max_waiting=2))
    clinic.fill()
    low, normal = clinic.arrive(request(priority=-1)), clinic.arrive()
    high = clinic.arrive(request(priority=1))
    assert low.refusal == "queue_full"
    assert normal.is_held
    assert high.is_held
    assert clinic.arrive(request(priority=-1)).refusal == "queue_full"
    assert clinic.room.counts.endings == {Ending.DISPLACED: 1, Ending.FULL: 1}


def test_what_occupies_no_engine_never_waits(clinic: Clinic) -> None:
    clinic.fill()
    clinic.arrive()
    assert clinic.arrive(request(model=None, has_body=False)).is_placed


def test_where_all_backends_fail_newcomers_are_refused_and_who_waits_goes_on_waiting(clinic: Clinic) -> None:
    placed = clinic.fill()
    held = clinic.arrive()
    for _ in range(FAILURES):
        clinic.fleet.breakers.fail(clinic.slot(), clinic.now_s)
    clinic.leave(placed[0])
    assert held.is_held
    clinic.wait(1.0)  # the pause is over: it is the probe
    assert held.is_placed
    assert clinic.arrive().refusal == "failing"


def test_a_probe_that_succeeds_lets_the_others_in(clinic: Clinic) -> None:
    placed = clinic.fill()
    held = [clinic.arrive() for _ in range(MAX_ACTIVE)]
    for _ in range(FAILURES):
        clinic.fleet.breakers.fail(clinic.slot(), clinic.now_s)
    for client in placed:
        clinic.leave(client)
    clinic.wait(1.0)
    assert [client.is_placed for client in held] == [True, False], "one probe at a time"
    clinic.fleet.breakers.succeed(clinic.slot(), clinic.now_s)
    clinic.wait(0.05)
    assert held[1].is_placed


def test_strangers_that_leave_let_others_in(clinic: Clinic) -> None:
    slot = clinic.slot()
    clinic.fleet.scraped(slot, Signals(running=MAX_ACTIVE, waiting=0), own_when_asked=0, now_s=clinic.now_s)
    held = clinic.arrive()
    assert held.is_held
    clinic.now_s += 1.0
    clinic.fleet.scraped(slot, Signals(running=0, waiting=0), own_when_asked=0, now_s=clinic.now_s)
    clinic.wait(0.05)
    assert held.is_placed


def test_who_would_wait_too_long_in_the_server_is_held_and_let_in_when_its_turn_comes_in_time(
    clinic: Clinic,
) -> None:
    placed, slot = clinic.arrive(), clinic.slot()
    clinic.fleet.states[slot].pace = replace_fields(clinic.fleet.states[slot].pace, turn_s=30.0)
    for _ in range(20):
        clinic.wait(1.0)
        clinic.fleet.scraped(slot, Signals(running=1, waiting=1), own_when_asked=1, now_s=clinic.now_s)
    client = clinic.arrive()
    assert clinic.own() < MAX_ACTIVE
    assert client.is_held
    clinic.leave(placed)
    clinic.wait(0.1)
    assert client.is_held, "a stranger waits there"
    clinic.fleet.scraped(slot, Signals(running=1, waiting=0), own_when_asked=0, now_s=clinic.now_s)
    clinic.wait(RETRY_S)
    assert client.is_placed


def test_a_new_backend_takes_those_who_wait(clinic: Clinic) -> None:
    clinic.fill()
    held = [clinic.arrive() for _ in range(3)]
    backends = [*serving("m"), Endpoint("new", "127.0.0.1", 9, frozenset({"m"}))]
    clinic.registry.apply(backends, clinic.now_s, backends)
    clinic.wait(0.05)
    assert [client.is_placed for client in held] == [True, True, False]
    assert clinic.own("new") == MAX_ACTIVE


def test_where_the_model_goes_who_waits_for_it_is_told_so_at_once(clinic: Clinic) -> None:
    clinic.fill()
    held = clinic.arrive()
    others = [Endpoint("vllm-9", "127.0.0.1", 9, frozenset({"other"}))]
    clinic.registry.apply(others, clinic.now_s, others)
    clinic.wait(0.05)
    assert held.refusal == "unknown_model"
    assert clinic.room.counts.endings[Ending.UNKNOWN_MODEL] == 1


def test_where_no_backend_is_left_to_be_chosen_envoys_pool_takes_who_waits(clinic: Clinic) -> None:
    clinic.fill()
    held = clinic.arrive()
    clinic.registry.apply([], clinic.now_s)
    clinic.wait(0.05)
    assert held.is_passed_through


def test_a_model_that_no_backend_has_named_yet_is_not_waited_for() -> None:
    """Its name is the client's: lines would be without number."""
    clinic = Clinic(RULES, [Endpoint("vllm-1", "127.0.0.1", 1, None)])
    for _ in range(MAX_ACTIVE):
        clinic.arrive(request(model="whatever"))
    assert clinic.arrive(request(model="anything")).refusal == "saturated"


def test_at_the_end_all_who_wait_go_to_envoys_pool_and_so_do_those_who_come_then(clinic: Clinic) -> None:
    placed = clinic.fill()
    held = [clinic.arrive() for _ in range(5)]
    clinic.room.close(clinic.now_s)
    assert all(client.is_passed_through for client in held)
    assert clinic.arrive().is_passed_through
    clinic.leave(placed[0])
    assert clinic.arrive().is_placed
    assert all(len(client.answers) == 2 for client in held)


def test_models_wait_in_lines_of_their_own() -> None:
    clinic = Clinic(replace(RULES, max_waiting=1), serving("a", "b"))
    placed = [clinic.arrive(request(model=model)) for model in ("a", "a", "b", "b")]
    for_a, for_b = clinic.arrive(request(model="a")), clinic.arrive(request(model="b"))
    assert (for_a.is_held, for_b.is_held) == (True, True)
    assert clinic.room.depths() == {"a": 1, "b": 1}
    clinic.leave(placed[2])
    assert (for_a.is_held, for_b.is_placed) == (True, True)
    assert clinic.room.depths() == {"a": 1}


def test_where_a_backend_serves_several_models_its_slot_goes_to_who_deserves_it_most() -> None:
    clinic = Clinic(RULES, [Endpoint("vllm-1", "127.0.0.1", 1, frozenset({"a", "b"}))])
    placed = [clinic.arrive(request(model="a")) for _ in range(MAX_ACTIVE)]
    older, newer = clinic.arrive(request(model="a")), clinic.arrive(request(model="b"))
    important = clinic.arrive(request(model="b", priority=1))
    clinic.leave(placed[0])
    assert important.is_placed
    clinic.leave(placed[1])
    assert (older.is_placed, newer.is_held) == (True, True)


def test_what_happened_is_counted(clinic: Clinic) -> None:
    placed = clinic.fill()
    clinic.arrive()
    clinic.now_s += 4.0
    clinic.arrive()
    assert clinic.room.oldest_s(clinic.now_s) == pytest.approx(4.0)
    clinic.leave(placed[0])
    assert clinic.room.oldest_s(clinic.now_s) == 0.0
    assert clinic.room.counts.endings == {Ending.LET_IN: 1}
    assert clinic.room.counts.waited_s == pytest.approx(4.0)
    assert sum(clinic.room.counts.waits) == 1
    assert clinic.router.counts.by_layer()["least_load"] == MAX_ACTIVE + 1


def test_a_tenant_that_floods_does_not_starve_another(clinic: Clinic) -> None:
    clinic.fill()
    for _ in range(50):
        clinic.arrive(request(tenant="flood"))
    modest = [clinic.arrive(request(tenant="modest")) for _ in range(3)]
    for _ in range(2 * len(modest)):
        clinic.leave(next(client for client in clinic.clients if client.is_placed))
    assert all(len(client.answers) == 2 for client in modest)


def configured(**queue: float) -> QueueRules:
    backends = [{"name": "vllm-1", "url": "http://127.0.0.1:8101"}]
    return Config.model_validate({"backends": backends, "admission": {"queue": queue}}).admission.queue


def test_envoy_is_set_up_for_the_longest_wait_that_can_be_configured() -> None:
    longest_s = 600
    configured(max_wait_s=longest_s)
    with pytest.raises(ValueError, match="max_wait_s"):
        configured(max_wait_s=longest_s + 1)
    assert f"max_message_timeout: {longest_s + HOLD_MARGIN_S:.0f}s" in shipped_bootstrap()
