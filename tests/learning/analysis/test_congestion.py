import numpy as np
import pytest
from support.observed import observed

from extproc.learning.analysis.congestion import WaitLocation, congestion_of
from extproc.learning.features import DEFAULT_ZONE


def test_long_waits_with_an_empty_queue_are_before_the_engine() -> None:
    load = np.linspace(50, 90, 100)
    found = congestion_of(observed(load / 3, load=load, num_running=32), DEFAULT_ZONE, "vllm-1")
    assert found.place is WaitLocation.BEFORE_ENGINE
    assert (found.nothing_waiting_share_saturated, found.queue_seen_share) == (1.0, 0.0)
    assert (found.running_top, found.at_top_share, found.is_running_pinned) == (32, 1.0, True)


def test_a_queue_that_the_engine_shows_is_in_the_engine() -> None:
    load = np.linspace(50, 90, 100)
    observations = observed(load / 3, load=load, num_running=32, num_waiting=load - 33)
    found = congestion_of(observations, DEFAULT_ZONE, "vllm-1")
    assert found.place is WaitLocation.IN_ENGINE
    assert found.queue_seen_share == pytest.approx(37 / 38)


def test_a_queue_that_shows_half_of_the_time_is_in_both_places() -> None:
    observations = observed(np.full(100, 20.0), load=60, num_running=32, num_waiting=np.arange(100) % 2)
    assert congestion_of(observations, DEFAULT_ZONE, "vllm-1").place is WaitLocation.BOTH


def test_running_requests_that_vary_are_not_pinned() -> None:
    observations = observed(np.full(200, 20.0), load=300, num_running=np.arange(200.0))
    assert congestion_of(observations, DEFAULT_ZONE, "vllm-1").is_running_pinned is False


def test_without_saturated_requests_the_place_is_not_stated() -> None:
    found = congestion_of(observed(np.full(100, 2.0), load=9, num_running=9), DEFAULT_ZONE, "vllm-1")
    assert (found.count, found.place, found.nothing_waiting_share_medium) == (
        100,
        WaitLocation.NOT_SATURATED,
        1.0,
    )
    assert (found.nothing_waiting_share_saturated, found.running_top) == (None, None)
