from dataclasses import replace

import numpy as np
import pytest
from support.recorded_loads import LIMITS, SERVER

from extproc.lab.engine.run import TICK_S
from extproc.lab.twin.recording import Recording
from extproc.lab.twin.trace_replay import replay


def recording(*requests: tuple[float, int, int], given_up: dict[int, float] | None = None) -> Recording:
    """Of (arrival, prompt, output); `given_up` says which are, and after how long."""
    at_s, prompts, outputs = (np.array(column) for column in zip(*requests, strict=True))
    given_up = given_up or {}
    patience_s = np.array([given_up.get(number, 1.0) for number in range(len(requests))])
    is_complete = np.array([number not in given_up for number in range(len(requests))])
    return Recording("", 0.0, at_s.astype(float), prompts, outputs, is_complete, patience_s, patience_s)


def step_s(*work: int) -> float:
    return SERVER.step_ticks().step(*work) * TICK_S


def test_a_request_alone_takes_its_prefill_its_tokens_and_the_overhead() -> None:
    timings = replay(recording((0.0, 100, 3), (50.0, 100, 3)), SERVER, LIMITS)
    prefill_s = step_s(100, 0, 0, 5050)
    decode_s = step_s(0, 1, 100) + step_s(0, 1, 101)
    assert timings.ttft_s == pytest.approx(prefill_s + SERVER.overhead_s(100))
    assert timings.duration_s == pytest.approx(prefill_s + decode_s + SERVER.overhead_s(100))


def test_who_comes_to_a_full_batch_waits() -> None:
    requests = [(0.0, 50, 100)] * LIMITS.max_num_seqs + [(0.1, 50, 100)]
    timings = replay(recording(*requests), SERVER, LIMITS)
    first_end_s = timings.duration_s[0]
    assert timings.ttft_s[-1] > first_end_s - 0.1
    assert timings.ttft_s[-1] == pytest.approx(first_end_s - 0.1 + step_s(50, 0, 0, 1275))


def test_who_gives_up_makes_room() -> None:
    requests = [(0.0, 50, 400)] * LIMITS.max_num_seqs + [(0.1, 50, 10)]
    stays = replay(recording(*requests), SERVER, LIMITS)
    leaves = replay(recording(*requests, given_up={0: 1.0}), SERVER, LIMITS)
    assert leaves.ttft_s[-1] < 1.1 < stays.ttft_s[-1]


def test_a_gap_in_the_load_is_nobodys_time() -> None:
    load = ((0.0, 100, 20), (0.5, 200, 20), (1.0, 50, 20))
    once = replay(recording(*load), SERVER, LIMITS)
    again = replay(recording(*load, *((1e6 + at_s, *rest) for at_s, *rest in load)), SERVER, LIMITS)
    assert again.ttft_s == pytest.approx(np.tile(once.ttft_s, 2))


def test_twice_the_speed_takes_half_the_time() -> None:
    fast = replay(recording((0.0, 100, 3)), replace(SERVER, speed=2.0), LIMITS)
    assert fast.ttft_s == pytest.approx(replay(recording((0.0, 100, 3)), SERVER, LIMITS).ttft_s / 2)
