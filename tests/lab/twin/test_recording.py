import re
from dataclasses import replace

import numpy as np
import pytest
from support.recorded_loads import LIMITS, SERVER, changed, recorded

from extproc.errors import CalibrationError
from extproc.lab.engine.run import TICK_S
from extproc.lab.twin.recording import Columns, Recording, recording_of, replay

LOAD = recorded((2.0,), 100, 20)
COUNT = len(LOAD["at_s"])


def test_requests_are_in_the_order_of_their_arrivals_from_zero_on() -> None:
    shuffled = np.random.default_rng(0).permutation(COUNT)
    recording = recording_of({name: column[shuffled] for name, column in LOAD.items()})
    assert recording.at_s[0] == 0
    assert np.array_equal(recording.at_s, LOAD["at_s"] - LOAD["at_s"][0])
    assert np.array_equal(recording.prompt_tokens, LOAD["input_tokens"])
    assert np.array_equal(recording.ttft_s, LOAD["ttft_s"])
    assert recording.is_complete.all()


def test_a_request_whose_client_left_is_kept_as_load() -> None:
    given_up = {"is_clean": False, "failure": "client_left", "output_tokens": np.nan, "token_limit": 77}
    recording = recording_of(changed(LOAD, slice(3, 4), **given_up))
    assert len(recording.at_s) == COUNT
    assert not recording.is_complete[3]
    assert recording.output_tokens[3] == 77
    assert np.isnan(recording.ttft_s[3])


def test_a_request_that_failed_is_left_out() -> None:
    recording = recording_of(changed(LOAD, slice(3, 4), is_clean=False, failure="server_error"))
    assert len(recording.at_s) == COUNT - 1


def test_one_of_several_backends_is_chosen_by_name() -> None:
    mixed = changed(LOAD, slice(0, 15), backend="vllm-2")
    assert len(recording_of(mixed, "vllm-1").at_s) == COUNT - 15


@pytest.mark.parametrize(
    ("columns", "backend", "fault"),
    [
        ({name: column[:0] for name, column in LOAD.items()}, None, "there are no samples"),
        ({name: column[:19] for name, column in LOAD.items()}, None, "19 requests were completed"),
        (changed(LOAD, slice(0, 9), backend="vllm-2"), None, "one server at a time.*vllm-1, vllm-2"),
        (LOAD, "vllm-3", "no samples of vllm-3, only of vllm-1"),
        (changed(LOAD, slice(0, 9), is_clean=False, failure="server_error"), None, "9 of 40 .* failed"),
        (changed(LOAD, slice(None), output_tokens=np.nan), None, "how many tokens came out"),
        (changed(LOAD, slice(None), cached_tokens=50.0), None, "from the prefix cache"),
    ],
)
def test_what_does_not_tell_how_fast_a_server_is_is_refused(
    columns: Columns, backend: str | None, fault: str
) -> None:
    with pytest.raises(CalibrationError) as caught:
        recording_of(columns, backend)
    assert re.search(fault, str(caught.value))


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


def test_a_gap_in_the_load_counts_for_no_request() -> None:
    load = ((0.0, 100, 20), (0.5, 200, 20), (1.0, 50, 20))
    once = replay(recording(*load), SERVER, LIMITS)
    again = replay(recording(*load, *((1e6 + at_s, *rest) for at_s, *rest in load)), SERVER, LIMITS)
    assert again.ttft_s == pytest.approx(np.tile(once.ttft_s, 2))


def test_twice_the_speed_takes_half_the_time() -> None:
    fast = replay(recording((0.0, 100, 3)), replace(SERVER, speed=2.0), LIMITS)
    assert fast.ttft_s == pytest.approx(replay(recording((0.0, 100, 3)), SERVER, LIMITS).ttft_s / 2)
