from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.errors import ConfigError
from extproc.lab.traffic.workload import (
    MAX_TOKENS,
    Fixed,
    Listed,
    Lognormal,
    Mix,
    Schedule,
    Step,
    Tokens,
    Workload,
    arrival_offsets_s,
    parse_lengths,
    parse_rates,
)

LENGTHS = st.integers(1, MAX_TOKENS)
DISTRIBUTIONS = st.one_of(
    st.builds(Fixed, LENGTHS),
    st.builds(Lognormal, st.floats(1, MAX_TOKENS), st.floats(0, 5)),
    st.builds(Mix, LENGTHS, LENGTHS, st.floats(0, 1)),
    st.builds(
        lambda tokens: Listed(np.array(tokens, np.int64), f"{tokens}.csv"),
        st.lists(LENGTHS, min_size=1, max_size=5),
    ),
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def requests_of(schedule: Schedule, per_arrival: int) -> int:
    return schedule.passes * sum(per_arrival * step.arrivals(per_arrival) for step in schedule.steps(1))


def no_file(name: str) -> Mapping[str, Tokens]:
    raise AssertionError(f"{name} was read")


@given(
    DISTRIBUTIONS, DISTRIBUTIONS, st.integers(0, 50), st.none() | st.integers(2, 10_000), st.integers(0, 99)
)
def test_lengths_are_at_least_one_and_fit_into_the_context(prompt, output, n, max_model_len, seed):
    prompts, outputs = Workload(prompt, output).draw(rng(seed), n, max_model_len)
    assert len(prompts) == len(outputs) == n
    assert (prompts >= 1).all()
    assert (outputs >= 1).all()
    assert (prompts + outputs <= (max_model_len or 2 * MAX_TOKENS)).all()


@given(DISTRIBUTIONS, st.integers(0, 99))
def test_the_same_seed_draws_the_same_lengths(lengths, seed):
    assert lengths.draw(rng(seed), 20).tolist() == lengths.draw(rng(seed), 20).tolist()


def test_a_lognormal_has_its_median_and_sigma():
    logs = np.log(Lognormal(250, 0.9).draw(rng(), 20_000))
    assert np.exp(np.median(logs)) == pytest.approx(250, rel=0.05)
    assert logs.std() == pytest.approx(0.9, rel=0.05)


def test_a_mix_has_its_share_of_long_ones():
    drawn = Mix(16, 2048, 0.2).draw(rng(), 10_000)
    assert set(drawn.tolist()) == {16, 2048}
    assert (drawn == 2048).mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("origins", [("a.csv", "a.csv"), ("a.csv", "b.csv")])
def test_two_columns_of_one_file_are_drawn_as_rows(origins):
    numbers = np.arange(1, 101)
    workload = Workload(Listed(numbers, origins[0]), Listed(numbers * 10, origins[1]))
    prompts, outputs = workload.draw(rng(), 500)
    assert (outputs == 10 * prompts).all() == (origins[0] == origins[1])


@given(st.floats(0.01, 500), st.floats(0.1, 100), st.integers(1, 2), st.integers(1, 5))
def test_a_schedule_never_has_more_requests_than_its_rates_say(rate, step_s, per_arrival, passes):
    schedule = Schedule((rate,), step_s, passes)
    requests = requests_of(schedule, per_arrival)
    assert requests <= passes * rate * step_s + 1e-6
    assert requests > passes * (rate * step_s - per_arrival) - 1e-6
    assert requests % per_arrival == 0


def test_a_rate_that_is_no_binary_number_loses_no_request():
    assert Step(1, 0.29, 100).arrivals(1) == 29


def test_every_pass_has_all_rates_in_order():
    schedule = Schedule((1.0, 4.0), 2.0, 3)
    assert [(step.pass_number, step.rate) for step in schedule.steps(2)] == [(2, 1.0), (2, 4.0)]
    assert requests_of(schedule, 1) == 30


@given(st.integers(0, 200), st.floats(0.1, 100), st.integers(0, 99))
def test_arrivals_are_within_their_step_and_in_order(arrivals, duration_s, seed):
    offsets_s = arrival_offsets_s(rng(seed), arrivals, duration_s)
    assert len(offsets_s) == arrivals
    assert (np.diff(offsets_s) >= 0).all()
    assert ((offsets_s >= 0) & (offsets_s <= duration_s)).all()


def test_pauses_between_arrivals_are_exponential():
    pauses_s = np.diff(arrival_offsets_s(rng(), 20_000, 2000.0))
    assert pauses_s.mean() == pytest.approx(0.1, rel=0.01)
    assert pauses_s.std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("fixed:64", Fixed(64)),
        ("lognormal:250:0.9", Lognormal(250, 0.9)),
        ("mix:16:2048:0.25", Mix(16, 2048, 0.25)),
    ],
)
def test_a_distribution_is_read_from_its_text(text, lengths):
    assert parse_lengths(text, "prompt_tokens", no_file) == lengths


def test_a_file_gives_the_column_that_is_asked_for():
    tables = {"f:1.csv": {"prompt_tokens": np.array([7]), "output_tokens": np.array([3])}}
    lengths = parse_lengths("csv:f:1.csv", "output_tokens", tables.__getitem__)
    assert lengths.draw(rng(), 2).tolist() == [3, 3]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "64",
        "fixed",
        "fixed:",
        "fixed:0",
        "fixed:1.5",
        "fixed:nan",
        "fixed:1:2",
        f"fixed:{MAX_TOKENS + 1}",
        "lognormal:250",
        "lognormal:0:1",
        "lognormal:250:-1",
        "lognormal:250:inf",
        "mix:1:2",
        "mix:1:2:1.5",
        "mix:0:2:0.5",
        "uniform:1:2",
        "csv:",
    ],
)
def test_another_text_is_refused_and_what_is_expected_is_said(text):
    with pytest.raises(ConfigError, match=r"prompt_tokens: expected fixed:N, lognormal:MEDIAN:SIGMA, mix:"):
        parse_lengths(text, "prompt_tokens", no_file)


def test_rates_are_sorted_and_none_is_there_twice():
    assert parse_rates("4, 0.5,1,4") == (0.5, 1.0, 4.0)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "0", "-1", "1,nan", "inf", "1e9"])
def test_rates_that_cannot_be_are_refused(text):
    with pytest.raises(ConfigError, match="rates: expected requests per second"):
        parse_rates(text)
