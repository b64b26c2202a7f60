import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.header_rules import HeaderRules
from extproc.request.objectives import OBJECTIVE_HEADERS, InferenceObjectives
from extproc.request.request import MAX_PRIORITY, PRIORITY_HEADER, read_request
from extproc.request.token_ratio import TokenRatios

NEW, OLD = OBJECTIVE_HEADERS


def objectives(**priorities: int) -> InferenceObjectives:
    found = InferenceObjectives()
    found.replace(priorities)
    return found


@given(st.dictionaries(st.text(min_size=1), st.integers(-(2**31), 2**31 - 1)))
def test_ranks_have_the_order_of_the_priorities_and_zero_is_zero(priorities: dict[str, int]) -> None:
    found = InferenceObjectives()
    found.replace(priorities)
    ranks = {name: found.rank({NEW: name}) for name in priorities}
    for one, priority in priorities.items():
        for other, another in priorities.items():
            assert ((ranks[one] or 0) < (ranks[other] or 0)) == (priority < another)
        assert (ranks[one] == 0) == (priority == 0)


def test_ranks_are_as_small_as_can_be() -> None:
    found = objectives(best=2_000, better=1_000, usual=0, batch=-5, worst=-9)
    names = ("best", "better", "usual", "batch", "worst")
    assert [found.rank({NEW: name}) for name in names] == [2, 1, 0, -1, -2]


@pytest.mark.parametrize("headers", [{}, {NEW: "another"}, {NEW: ""}, {"x-objective": "gold"}], ids=str)
def test_a_request_without_a_known_objective_has_none(headers: dict[str, str]) -> None:
    assert objectives(gold=1).rank(headers) is None


def test_the_newer_header_counts() -> None:
    found = objectives(gold=1, batch=-1)
    assert found.rank({OLD: "gold"}) == 1
    assert found.rank({OLD: "gold", NEW: "batch"}) == -1


def priority(rules: HeaderRules, headers: dict[str, str], body: bytes | None = b"{}") -> int:
    path = {":method": "POST", ":path": "/v1/chat/completions"}
    return read_request({**path, **headers}, body, TokenRatios(), rules).priority


def test_an_objective_counts_before_the_clients_own_number() -> None:
    rules = HeaderRules(objectives=objectives(gold=10))
    assert priority(rules, {NEW: "gold", PRIORITY_HEADER: "-5"}) == 1
    assert priority(rules, {NEW: "gold"}, body=None) == 1
    assert priority(rules, {NEW: "silver", PRIORITY_HEADER: "-5"}) == -5
    rules.objectives.replace({})
    assert priority(rules, {NEW: "gold"}) == 0


def test_so_many_objectives_share_the_last_priority() -> None:
    rules = HeaderRules(objectives=objectives(**{f"o{n}": n for n in range(200)}))
    assert priority(rules, {NEW: "o199"}) == MAX_PRIORITY
