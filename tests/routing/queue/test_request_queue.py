import json
from dataclasses import replace

import pytest
from msgspec.structs import replace as replace_fields
from support.build import FAILURES, a_request, an_endpoint, scrape
from support.held_requests import MAX_ACTIVE, RULES, Clinic

from extproc.adapters.envoy.bootstrap import shipped_bootstrap
from extproc.config.stages import Config
from extproc.exchange.messages import Hold, Reject
from extproc.fleet.endpoint import Endpoint
from extproc.policy.decision import Layer, Reason
from extproc.routing.queue.queue_rules import HOLD_MARGIN_S, QueueRules
from extproc.routing.queue.request_queue import MAX_MODELS, RETRY_S
from extproc.routing.queue.wait_counts import Ending
from extproc.routing.refusal import SPREAD


def serving(*models: str) -> list[Endpoint]:
    """A backend for each model."""
    return [an_endpoint(number, model=model) for number, model in enumerate(models, start=1)]


@pytest.fixture
def clinic() -> Clinic:
    return Clinic(RULES)


def test_while_there_is_room_no_request_is_held(clinic: Clinic) -> None:
    clinic.fill()
    assert clinic.queue.waiting == 0


def test_envoy_is_asked_to_wait_longer_than_a_held_request_may(clinic: Clinic) -> None:
    clinic.fill()
    client = clinic.arrive()
    assert client.answers == [Hold(RULES.max_wait_s + HOLD_MARGIN_S)]
    assert clinic.queue.waiting == 1


def test_when_a_request_ends_the_one_that_waited_longest_is_let_in(clinic: Clinic) -> None:
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


def test_a_newcomer_does_not_overtake_requests_that_wait(clinic: Clinic) -> None:
    placed = clinic.fill()
    held = clinic.arrive()
    clinic.backend().own -= 1  # room of which the queue was not notified
    late = clinic.arrive()
    assert late.is_held
    clinic.wait(0.05)
    assert held.is_placed
    assert late.is_held
    assert placed[0].is_placed


def test_a_client_that_leaves_makes_room_in_the_queue_at_once() -> None:
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
    assert clinic.queue.counts.endings[Ending.CLIENT_LEFT] == 1


def test_at_its_deadline_a_held_request_is_refused_as_without_a_queue(clinic: Clinic) -> None:
    clinic.fill()
    client = clinic.arrive()
    clinic.wait(9.99)
    assert client.is_held
    assert clinic.queue.due_s(clinic.now_s) == pytest.approx(clinic.now_s + 0.01)
    clinic.wait(0.01)
    refusal = client.answers[-1]
    assert isinstance(refusal, Reject)
    assert refusal.status == 503
    assert int(refusal.headers["retry-after"]) >= 1
    assert refusal.headers["x-extproc-layer"] == "reject"
    assert json.loads(refusal.body)["error"]["type"] == "overloaded_error"
    assert clinic.core.router.counts.by_reason[Layer.REJECT, Reason.QUEUE_TIMEOUT] == 1
    assert clinic.queue.due_s(clinic.now_s) == clinic.now_s + RETRY_S


def test_no_request_is_let_in_after_its_deadline_even_if_the_clock_is_late(clinic: Clinic) -> None:
    placed = clinic.fill()
    late = clinic.arrive()
    clinic.now_s += 5.0
    young = clinic.arrive()
    clinic.now_s += 6.0
    clinic.leave(placed[0])
    assert late.refusal == "queue_timeout"
    assert young.is_placed


def test_retry_after_grows_with_the_number_of_requests_that_wait() -> None:
    clinic = Clinic(replace(RULES, max_waiting=20))
    for _ in range(100):  # two requests a second
        clinic.now_s += 0.5
        clinic.leave(clinic.arrive())
    clinic.fill()
    for _ in range(20):
        assert clinic.arrive().is_held
    refusal = clinic.arrive().answers[-1]
    assert isinstance(refusal, Reject)
    assert 10 * (1 - SPREAD) - 1 <= int(refusal.headers["retry-after"]) <= 12 * (1 + SPREAD)


def test_priorities_beyond_the_bounds_count_as_the_bounds() -> None:
    clinic = Clinic(replace(RULES, min_priority=0, max_priority=0))
    placed = clinic.fill()
    first, pushy = clinic.arrive(), clinic.arrive(a_request(priority=100))
    clinic.leave(placed[0])
    assert first.is_placed
    assert pushy.is_held


def test_low_priority_is_shed_first() -> None:
    clinic = Clinic(replace(RULES, max_waiting=2))
    clinic.fill()
    low, normal = clinic.arrive(a_request(priority=-1)), clinic.arrive()
    high = clinic.arrive(a_request(priority=1))
    assert low.refusal == "queue_full"
    assert normal.is_held
    assert high.is_held
    assert clinic.arrive(a_request(priority=-1)).refusal == "queue_full"
    assert clinic.queue.counts.endings == {Ending.DISPLACED: 1, Ending.FULL: 1}


def test_a_request_without_a_body_never_waits(clinic: Clinic) -> None:
    clinic.fill()
    clinic.arrive()
    assert clinic.arrive(a_request(model=None, has_body=False)).is_placed


def test_while_all_backends_fail_newcomers_are_refused_and_held_requests_go_on_waiting(
    clinic: Clinic,
) -> None:
    placed = clinic.fill()
    held = clinic.arrive()
    for _ in range(FAILURES):
        clinic.backend().breaker.fail(clinic.now_s)
    clinic.leave(placed[0])
    assert held.is_held
    clinic.wait(1.0)  # the pause is over: it is the probe
    assert held.is_placed
    assert clinic.arrive().refusal == "failing"


def test_a_probe_that_succeeds_lets_the_others_in(clinic: Clinic) -> None:
    placed = clinic.fill()
    held = [clinic.arrive() for _ in range(MAX_ACTIVE)]
    for _ in range(FAILURES):
        clinic.backend().breaker.fail(clinic.now_s)
    for client in placed:
        clinic.leave(client)
    clinic.wait(1.0)
    assert [client.is_placed for client in held] == [True, False], "one probe at a time"
    clinic.backend().breaker.succeed(clinic.now_s)
    clinic.wait(0.05)
    assert held[1].is_placed


def test_foreign_requests_that_end_let_held_ones_in(clinic: Clinic) -> None:
    scrape(clinic.backend(), MAX_ACTIVE, own_when_asked=0, now_s=clinic.now_s)
    held = clinic.arrive()
    assert held.is_held
    clinic.now_s += 1.0
    scrape(clinic.backend(), 0, own_when_asked=0, now_s=clinic.now_s)
    clinic.wait(0.05)
    assert held.is_placed


def test_a_request_that_would_wait_too_long_in_the_server_is_held_until_it_would_not() -> None:
    clinic = Clinic(limit_s=2.0)
    placed, backend = clinic.arrive(), clinic.backend()
    backend.pace = replace_fields(backend.pace, turn_s=30.0)
    for _ in range(20):
        clinic.wait(1.0)
        scrape(backend, 1, 1, own_when_asked=1, now_s=clinic.now_s)
    client = clinic.arrive()
    assert clinic.own() < MAX_ACTIVE
    assert client.is_held
    clinic.leave(placed)
    clinic.wait(0.1)
    assert client.is_held, "a foreign request waits there"
    scrape(backend, 1, 0, own_when_asked=0, now_s=clinic.now_s)
    clinic.wait(RETRY_S)
    assert client.is_placed


def test_a_new_backend_takes_held_requests(clinic: Clinic) -> None:
    clinic.fill()
    held = [clinic.arrive() for _ in range(3)]
    backends = [*serving("m"), an_endpoint(9, name="new")]
    clinic.core.set_members(backends, clinic.now_s, backends)
    clinic.wait(0.05)
    assert [client.is_placed for client in held] == [True, True, False]
    assert clinic.own("new") == MAX_ACTIVE


def test_when_the_last_backend_of_a_model_leaves_its_held_requests_are_sent_away_at_their_time(
    clinic: Clinic,
) -> None:
    clinic.fill()
    held = clinic.arrive()
    others = [an_endpoint(9, model="other")]
    clinic.core.set_members(others, clinic.now_s, others)
    clinic.wait(RULES.max_wait_s - 0.1)
    assert held.is_held
    clinic.wait(0.2)
    assert held.refusal == "model_gone"
    assert clinic.queue.counts.endings[Ending.TIMEOUT] == 1


def test_without_a_wait_for_starts_they_are_sent_away_at_once() -> None:
    clinic = Clinic(replace(RULES, max_start_wait_s=0.0))
    clinic.fill()
    held = clinic.arrive()
    others = [an_endpoint(9, model="other")]
    clinic.core.set_members(others, clinic.now_s, others)
    clinic.wait(0.05)
    assert held.refusal == "model_gone"
    assert clinic.arrive().refusal == "model_gone"


def test_when_the_last_backend_leaves_held_requests_go_to_envoys_pool() -> None:
    clinic = Clinic(replace(RULES, max_start_wait_s=0.0))
    clinic.fill()
    held = clinic.arrive()
    clinic.core.set_members([], clinic.now_s)
    clinic.wait(0.05)
    assert held.is_passed_through


def test_a_model_that_no_backend_has_named_yet_is_not_waited_for() -> None:
    """Clients choose the name: the number of queues would have no bound."""
    clinic = Clinic(RULES, [an_endpoint(1, model=None)])
    for _ in range(MAX_ACTIVE):
        clinic.arrive(a_request(model="whatever"))
    assert clinic.arrive(a_request(model="anything")).refusal == "saturated"


def test_a_queue_that_closes_sends_held_requests_and_newcomers_to_envoys_pool(clinic: Clinic) -> None:
    placed = clinic.fill()
    held = [clinic.arrive() for _ in range(5)]
    clinic.queue.close(clinic.now_s)
    assert all(client.is_passed_through for client in held)
    assert clinic.arrive().is_passed_through
    clinic.leave(placed[0])
    assert clinic.arrive().is_placed
    assert all(len(client.answers) == 2 for client in held)


def test_each_model_has_a_queue_of_its_own() -> None:
    clinic = Clinic(replace(RULES, max_waiting=1), serving("a", "b"))
    placed = [clinic.arrive(a_request(model=model)) for model in ("a", "a", "b", "b")]
    for_a, for_b = clinic.arrive(a_request(model="a")), clinic.arrive(a_request(model="b"))
    assert (for_a.is_held, for_b.is_held) == (True, True)
    assert clinic.queue.depths() == {"a": 1, "b": 1}
    clinic.leave(placed[2])
    assert (for_a.is_held, for_b.is_placed) == (True, True)
    assert clinic.queue.depths() == {"a": 1}


def test_a_backend_of_several_models_takes_the_most_important_request_of_all_their_queues() -> None:
    clinic = Clinic(RULES, [an_endpoint(1, models=frozenset({"a", "b"}))])
    placed = [clinic.arrive(a_request(model="a")) for _ in range(MAX_ACTIVE)]
    older, newer = clinic.arrive(a_request(model="a")), clinic.arrive(a_request(model="b"))
    important = clinic.arrive(a_request(model="b", priority=1))
    clinic.leave(placed[0])
    assert important.is_placed
    clinic.leave(placed[1])
    assert (older.is_placed, newer.is_held) == (True, True)


def test_waits_and_their_endings_are_counted(clinic: Clinic) -> None:
    placed = clinic.fill()
    clinic.arrive()
    clinic.now_s += 4.0
    clinic.arrive()
    assert clinic.queue.oldest_s(clinic.now_s) == pytest.approx(4.0)
    clinic.leave(placed[0])
    assert clinic.queue.oldest_s(clinic.now_s) == 0.0
    assert clinic.queue.counts.endings == {Ending.LET_IN: 1}
    assert clinic.queue.counts.waits.sum_s == pytest.approx(4.0)
    assert sum(clinic.queue.counts.waits.counts) == 1
    assert clinic.core.router.counts.by_layer()["least_load"] == MAX_ACTIVE + 1


def test_a_tenant_that_floods_does_not_starve_another(clinic: Clinic) -> None:
    clinic.fill()
    for _ in range(50):
        clinic.arrive(a_request(tenant="flood"))
    modest = [clinic.arrive(a_request(tenant="modest")) for _ in range(3)]
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


def test_a_request_whose_time_is_over_is_sent_to_a_backend_that_failed_and_is_alive() -> None:
    clinic = Clinic(replace(RULES, max_wait_s=4.0), backends=serving("m", "m"))
    failed = clinic.core.registry.members[1]
    for backend in clinic.core.registry.members:
        scrape(backend, now_s=clinic.now_s)
    for _ in range(FAILURES):
        failed.breaker.fail(clinic.now_s)
    failed.breaker.begin(clinic.now_s)
    assert all(clinic.arrive().is_placed for _ in range(MAX_ACTIVE))
    held = clinic.arrive()
    for _ in range(8):
        assert held.is_held
        clinic.wait(0.5)
        scrape(failed, now_s=clinic.now_s)
    assert held.is_placed
    assert clinic.queue.counts.endings[Ending.LET_IN] == 1


def test_names_that_only_clients_have_said_have_no_queue_of_their_own_in_the_metrics_and_few_in_all() -> None:
    clinic = Clinic(RULES, backends=[an_endpoint(1, model="m", resolves_adapters=True)])
    clinic.fill()
    assert clinic.arrive().is_held
    made_up = [clinic.arrive(a_request(model=f"made up {number}")) for number in range(MAX_MODELS + 50)]
    assert clinic.queue.depths() == {"m": 1, "": MAX_MODELS - 1}
    assert {client.refusal for client in made_up[MAX_MODELS:]} == {"saturated"}
    assert clinic.arrive().is_held
    assert set(clinic.core.servers_wanted(clinic.now_s)) == {"m"}
