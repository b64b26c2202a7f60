import re

import numpy as np
import pytest
from support.recorded_loads import changed, recorded

from extproc.errors import CalibrationError
from extproc.lab.twin.recording import Columns, recording_of

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
