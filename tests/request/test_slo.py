"""A client's own limit of its wait: what makes sense is bounded, all else counts as none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.slo import MAX_DIGITS, SLO_HEADERS, SloRule

RULE = SloRule(min_ttft_s=0.1, max_ttft_s=60.0)
CANONICAL, ALIAS = SLO_HEADERS


@pytest.mark.parametrize("name", SLO_HEADERS)
@pytest.mark.parametrize(("text", "limit_s"), [("500", 0.5), ("1500.5", 1.5005), ("2e3", 2.0), ("+700", 0.7)])
def test_a_limit_is_given_in_milliseconds(name: str, text: str, limit_s: float) -> None:
    assert RULE.limit_s({name: text}) == limit_s


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-5",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1_000",
        "\u0665\u0660\u0660",
        "500, 500",
        "fast",
        "0x10",
        "5" * 25,
    ],
)
def test_a_value_that_makes_no_sense_counts_as_none(text: str) -> None:
    assert RULE.limit_s({CANONICAL: text}) is None
    assert RULE.limit_s({CANONICAL: text, ALIAS: "500"}) == 0.5


@pytest.mark.parametrize(
    ("text", "limit_s"), [("0.001", 0.1), ("1e-300", 0.1), ("1e12", 60.0), ("1e308", 60.0)]
)
def test_tiny_and_huge_limits_count_as_the_bounds(text: str, limit_s: float) -> None:
    assert RULE.limit_s({ALIAS: text}) == limit_s


def test_of_two_names_the_one_of_today_counts() -> None:
    assert RULE.limit_s({ALIAS: "900", CANONICAL: "300"}) == 0.3


def test_limits_can_be_switched_off() -> None:
    assert SloRule(is_enabled=False).limit_s({CANONICAL: "500"}) is None


def test_the_smallest_limit_is_not_above_the_largest() -> None:
    with pytest.raises(ValueError, match="min_ttft_s"):
        SloRule(min_ttft_s=2.0, max_ttft_s=1.0)


@given(st.text(max_size=2 * MAX_DIGITS) | st.floats().map(str))
def test_whatever_a_client_sends_the_limit_is_within_the_bounds(text: str) -> None:
    limit_s = RULE.limit_s({CANONICAL: text})
    assert limit_s is None or RULE.min_ttft_s <= limit_s <= RULE.max_ttft_s
