from hypothesis import given
from hypothesis import strategies as st

from extproc.fleet.transfer_cost import BASE_S, TOKEN_S, TransferCost

TOKENS = 10_000.0
GUESS_S = BASE_S + TOKEN_S * TOKENS


def test_it_begins_with_a_guess_that_grows_with_the_prompt() -> None:
    cost = TransferCost()
    assert cost.expected_s(TOKENS, 0.0) == GUESS_S
    assert cost.expected_s(0.0, 0.0) == BASE_S


def test_transfers_that_take_longer_than_guessed_are_expected_to_and_forgotten_in_time() -> None:
    cost = TransferCost()
    for _ in range(100):
        cost.learn(TOKENS, 1.0, 1.0 + 3 * GUESS_S, 10.0)
    assert 2.5 * GUESS_S < cost.expected_s(TOKENS, 10.0) < 3 * GUESS_S
    assert cost.expected_s(TOKENS, 1000.0) < 1.01 * GUESS_S


def test_what_comes_sooner_than_predicted_costs_nothing_and_never_less() -> None:
    cost = TransferCost()
    for _ in range(100):
        cost.learn(TOKENS, 2.0, 1.0, 10.0)
    assert cost.expected_s(TOKENS, 10.0) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))))
def test_it_is_a_finite_time_whatever_it_has_seen(
    seen: list[tuple[float, float, float, float]],
) -> None:
    cost = TransferCost()
    for tokens, without_transfer_s, ttft_s, now_s in seen:
        cost.learn(tokens, without_transfer_s, ttft_s, now_s)
        assert 0.0 <= cost.expected_s(TOKENS, now_s) < float("inf")
