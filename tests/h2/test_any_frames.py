"""Any frames at all: `tests/fuzz/h2_frames.py` has the body, and runs it a million times."""

from random import Random

from fuzz.h2_frames import run_sequence
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_frame_is_answered_as_the_rfc_says_and_nothing_is_kept(source: Random) -> None:
    run_sequence(source)


def test_common_sequences_are_answered_as_the_rfc_says() -> None:
    answers = sum((run_sequence(Random(seed)).total() for seed in range(500)), 0)
    assert answers > 2000
