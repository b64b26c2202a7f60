from dataclasses import replace

import pytest
from support.evaluated_scenarios import Given, refusing, scenario
from support.retries import Refusing, tried

from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.nuisances import Nuisances
from extproc.lab.traffic.arrivals import Arrival

REQUEST = Arrival(1.0, 100, 10)


def test_a_refused_request_comes_back_exactly_after_retry_after() -> None:
    result, policy = tried(Refusing([7.0, 3.0]), retries=2)
    assert policy.asked_at_s == pytest.approx([1.0, 8.0, 11.0])
    assert (result.requests, result.attempts, result.refused) == (1, 3, 0)
    assert result.ttft_s(50) == pytest.approx(10.0, rel=0.02)
    assert result.goodput == 0


def test_without_retry_after_the_pauses_double_and_are_a_little_shorter() -> None:
    _, policy = tried(Refusing([None] * 6), retries=6)
    pauses_s = [
        later - earlier for earlier, later in zip(policy.asked_at_s, policy.asked_at_s[1:], strict=False)
    ]
    for pause_s, full_s in zip(pauses_s, [0.5, 1.0, 2.0, 4.0, 8.0, 8.0], strict=True):
        assert 0.75 * full_s <= pause_s <= full_s
    assert len({pause_s / full_s for pause_s, full_s in zip(pauses_s, [0.5, 1.0, 2.0], strict=False)}) == 3


@pytest.mark.parametrize("absurd_s", [0.0, -1.0, 100_000.0])
def test_an_absurd_retry_after_is_ignored(absurd_s: float) -> None:
    _, policy = tried(Refusing([absurd_s]), retries=1)
    assert 0.375 <= policy.asked_at_s[1] - 1.0 <= 0.5


def test_a_client_gives_up_after_its_last_retry() -> None:
    result, policy = tried(Refusing([1.0] * 9), retries=2)
    assert policy.asked_at_s == [1.0, 2.0, 3.0]
    assert (result.refused, result.attempts) == (1, 3)
    assert result.retried is not None
    assert result.retried.given_up_p50_s == pytest.approx(2.0, rel=0.01)


def test_what_a_backend_loses_before_the_first_token_is_sent_again_and_later_not() -> None:
    early, late = Arrival(9.999, 8000, 10), Arrival(9.0, 10, 4000)
    fleet = "a100-8b*1:8:16384!10-11"
    scene = replace(scenario(fleet), traffic=Given((late, early)), nuisances=Nuisances(retries=2))
    result = evaluate(scene, "round-robin", seed=1)
    assert (result.requests, result.failed, result.attempts) == (2, 1, 4)


def test_every_user_is_answered_or_gives_up_and_retries_bring_more_answers() -> None:
    calm = refusing(scenario(load=1.3, duration_s=40.0), max_active=8)
    once = evaluate(calm, "layered", seed=3)
    again = evaluate(replace(calm, nuisances=Nuisances(retries=2)), "layered", seed=3)
    assert again.requests == once.requests
    assert sum(backend.requests for backend in again.backends) + again.refused == again.requests
    assert again.refused < once.refused
    assert again.attempts > again.requests
    assert (once.attempts, once.retried) == (once.requests, None)
