import pytest

from extproc.fleet.usual_prompt import LEAST_SHARE, UsualPrompt


def a_usual_prompt(tokens: float) -> UsualPrompt:
    usual = UsualPrompt()
    for _ in range(10):
        usual.sent(tokens)
    return usual


def test_before_any_prompt_all_may_wait_equally_long() -> None:
    assert UsualPrompt().wait_share(1e6) == 1.0


def test_the_longer_a_prompt_is_the_less_it_may_wait_but_never_less_than_half() -> None:
    usual = a_usual_prompt(1000.0)
    shares = [usual.wait_share(tokens) for tokens in (10.0, 1000.0, 2000.0, 4000.0, 1e7)]
    assert shares[:2] == [1.0, 1.0]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == LEAST_SHARE


def test_the_usual_length_follows_the_traffic() -> None:
    usual = a_usual_prompt(1000.0)
    usual.sent(8000.0)
    assert 1000.0 < usual.tokens < 2000.0
    for _ in range(2000):
        usual.sent(8000.0)
    assert usual.tokens == pytest.approx(8000.0, rel=0.01)


def test_prompts_that_need_no_computing_leave_all_as_it_is() -> None:
    usual = a_usual_prompt(0.0)
    assert usual.wait_share(100.0) == 1.0
