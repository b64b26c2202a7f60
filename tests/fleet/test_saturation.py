from extproc.fleet.adaptive_limit import AdaptiveRule
from extproc.fleet.saturation import SaturationRule

RULE = SaturationRule(max_active=10, resume_load=8)


def saturated_along(loads: list[float]) -> list[bool]:
    """Whether the backend is saturated as its load takes these values one after the other."""
    closed_above, result = RULE.opened(RULE.max_active), []
    for load in loads:
        closed_above = RULE.closes_above(load, closed_above, RULE.max_active)
        result.append(load > closed_above)
    return result


def test_a_backend_is_saturated_when_one_more_request_would_exceed_the_limit() -> None:
    assert saturated_along([8, 9, 10]) == [False, False, True]


def test_a_saturated_backend_comes_back_only_at_the_resume_load() -> None:
    assert saturated_along([10, 9, 10, 9, 8, 9]) == [True, True, True, True, False, False]


def test_the_load_to_come_back_at_moves_with_the_limit() -> None:
    moving = SaturationRule(16, adaptive=AdaptiveRule(4, 500), resume_share=0.8)
    assert moving.closes_above(100, closed_above=99, max_active=100) == 80
    assert moving.closes_above(81, closed_above=80, max_active=200) == 160
    assert moving.closes_above(80, closed_above=80, max_active=100) == 99
