import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.fleet.prediction_record import KNOWN_OUTCOMES
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.served_replay import replay, settled_corrections


def observed(at_s: list[float], ttft_s: list[float], backend: list[int]) -> Observations:
    features = np.zeros((len(at_s), len(FEATURES)))
    return Observations(np.array(at_s), features, np.array(ttft_s), np.array(backend, np.intp), ("a", "b"))


def test_an_outcome_counts_from_the_moment_of_its_first_token() -> None:
    seen = observed([0.0, 1.9, 2.0, 2.1], [2.0, 9.0, 9.0, 9.0], [0, 0, 0, 1])
    corrected = replay(np.zeros(4), seen, np.zeros(2))
    learned = np.log(2.0) / (1 + KNOWN_OUTCOMES)
    assert corrected == pytest.approx([0.0, 0.0, learned, 0.0])


def test_the_correction_starts_at_the_offset_known_from_training() -> None:
    seen = observed([0.0, 0.1], [5.0, 5.0], [0, 1])
    assert replay(np.ones(2), seen, np.array([0.5, -0.25])).tolist() == [1.5, 0.75]


def test_a_machine_that_the_model_does_not_know_is_corrected_in_time() -> None:
    n = 200
    seen = observed(np.arange(0.0, n).tolist(), [0.5] * n, [0] * n)
    corrected = replay(np.zeros(n), seen, np.zeros(2))
    assert corrected[-1] == pytest.approx(np.log(0.5), abs=0.05)


def test_outcomes_marked_as_not_teaching_change_no_correction() -> None:
    seen = observed([0.0, 10.0, 20.0], [0.01, 2.0, 2.0], [0, 0, 0])
    corrected = replay(np.zeros(3), seen, np.zeros(2), np.array([False, True, True]))
    assert corrected[:2].tolist() == [0.0, 0.0]
    assert corrected[2] > 0


def test_the_settled_correction_is_what_the_next_request_would_get() -> None:
    seen = observed([0.0, 1.0, 2.0, 60.0, 60.0], [4.0, 3.0, 0.5, 1.0, 1.0], [0, 1, 0, 0, 1])
    start = np.array([0.5, -0.5])
    next_ones = replay(np.zeros(5), seen, start)[3:]
    settled = settled_corrections(np.zeros(3), seen.take(slice(None, 3)), start)
    assert settled.tolist() == next_ones.tolist()


def test_a_replay_without_observations_is_empty() -> None:
    assert replay(np.empty(0), observed([], [], []), np.zeros(2)).size == 0


@settings(deadline=None)
@given(st.data())
def test_no_prediction_knows_the_future(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 25))
    times = st.lists(st.floats(0.01, 10.0), min_size=n, max_size=n)
    at_s = sorted(data.draw(times))
    ttft_s = data.draw(times)
    backend = data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    row = data.draw(st.integers(0, n - 1))
    is_future = np.array(at_s) + np.array(ttft_s) > at_s[row]
    others = np.where(is_future, np.array(ttft_s) + np.array(data.draw(times)), ttft_s)
    said = np.linspace(-1, 1, n)
    first = replay(said, observed(at_s, ttft_s, backend), np.zeros(2))
    second = replay(said, observed(at_s, others.tolist(), backend), np.zeros(2))
    assert first[row] == second[row]
