from itertools import cycle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.fleet.adaptive_limit import AdaptiveLimit, AdaptiveRule

RULE = AdaptiveRule(min_active=4, max_active=500, resume_share=1.0)
DECODING_S = 2.0


class Machine:
    """A server of `places`, always full: its requests wait as long as Little's law says."""

    def __init__(self, places: int, rule: AdaptiveRule = RULE) -> None:
        self.places = places
        self.rule = rule
        self.limit = AdaptiveLimit(rule)
        self.now_s = 0.0
        self.rng = np.random.default_rng(1)

    def serve(self, requests: int, base_s: tuple[float, ...] = (0.05,), most: float = np.inf) -> float:
        """The limit, after so many requests with prompts of one of these costs; at most `most` in flight."""
        for number, prompt_s in zip(range(requests), cycle(base_s), strict=False):
            # The first ones find the server empty.
            load = int(min(self.limit.limit, most, number + 1)) - 1
            waiting = max(0, load + 1 - self.places)
            per_s = min(load + 1, self.places) / DECODING_S
            self.limit.own_changes(load + 1, self.now_s)
            self.now_s += 1 / per_s
            self.limit.own_changes(load + 1, self.now_s)
            self.limit.ended()
            noise = float(self.rng.lognormal(0.0, 0.2))
            self.limit.observed(load, prompt_s * noise + waiting / per_s, 2000 * prompt_s)
        return self.limit.limit


@pytest.mark.parametrize("places", [8, 20, 64, 256])
def test_the_limit_settles_at_the_places_of_the_server(places: int) -> None:
    assert int(Machine(places).serve(20_000)) == pytest.approx(places, rel=0.15)


@pytest.mark.parametrize("places", [64, 256])
def test_long_prompts_are_not_taken_for_a_queue(places: int) -> None:
    assert int(Machine(places).serve(20_000, base_s=(0.05, 0.8))) == pytest.approx(places, rel=0.15)


def test_the_reference_does_not_drift_under_permanent_load() -> None:
    machine = Machine(64)
    early = machine.serve(10_000)
    assert machine.serve(200_000) == pytest.approx(early, rel=0.03)


def test_the_limit_follows_a_server_that_has_become_smaller_or_larger() -> None:
    machine = Machine(64)
    machine.serve(10_000)
    machine.places = 32
    assert machine.serve(10_000) == pytest.approx(32, rel=0.15)
    machine.places = 64
    assert machine.serve(20_000) == pytest.approx(64, rel=0.15)


def test_a_limit_that_nobody_reaches_stays_as_it_is() -> None:
    assert Machine(64).serve(5_000, most=10) == RULE.start


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e4),
            st.floats(1e-6, 1e5),
            st.floats(-10, 1e9),
            st.floats(0, 100),
            st.integers(0, 600),
        ),
        max_size=300,
    )
)
@settings(max_examples=50, deadline=None)
def test_whatever_is_observed_the_limit_stays_within_its_bounds(answers) -> None:
    limit, now_s = AdaptiveLimit(RULE), 0.0
    for load, ttft_s, tokens, step_s, own in answers:
        now_s += step_s
        limit.own_changes(own, now_s)
        limit.ended()
        limit.observed(load, ttft_s, tokens)
        assert RULE.min_active <= limit.limit <= RULE.max_active
