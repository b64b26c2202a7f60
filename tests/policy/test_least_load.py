from math import inf

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.build import a_backend, view_of

from extproc.policy.least_load import MAX_TIE, MIN_TIE, TIE_FRACTION, least_loaded

NOW_S = 100.0
CANDIDATES = st.lists(
    st.tuples(
        st.sampled_from([1.0, 1.004, 1.03, 1.2, inf]),  # the score
        st.integers(0, 2),  # the load
        st.sampled_from([-inf, 90.0, 91.0]),  # when it was chosen
        st.sampled_from([0.0, 10.0, 20.0]),  # the tokens in its cache
    ),
    min_size=1,
    max_size=6,
).filter(lambda candidates: any(score < inf for score, *_ in candidates))


@given(CANDIDATES)
def test_of_those_nearly_the_best_the_lightest_wins_and_then_the_one_chosen_longest_ago(
    candidates: list[tuple[float, int, float, float]],
) -> None:
    backends = [a_backend(number=number) for number in range(len(candidates))]
    for backend, (_, load, chosen_at_s, _) in zip(backends, candidates, strict=True):
        backend.own, backend.silence.chosen_at_s = load, chosen_at_s
    view = view_of(backends, NOW_S)
    view.near_tokens = {
        backend: tokens for backend, (*_, tokens) in zip(backends, candidates, strict=True) if tokens
    }
    found = [score for score, *_ in candidates]
    first = found.index(min(found))
    bound = found[first] + min(MAX_TIE, max(MIN_TIE, TIE_FRACTION * backends[first].pace.base_s))
    near = [each for each in candidates if each[0] <= bound and each[3] >= candidates[first][3]]
    best = min((load, chosen_at_s) for _, load, chosen_at_s, _ in near)
    chosen = candidates[least_loaded(view, found, np.random.default_rng(1))]
    assert chosen in near
    assert chosen[1:3] == best
