import numpy as np

from extproc.fleet.saturation import SaturationRule

RULE = SaturationRule(max_active=10, resume_load=8)


def saturated(load: float, *, was: bool) -> bool:
    return bool(RULE.is_saturated(np.array([load]), np.array([was]))[0])


def test_a_backend_is_saturated_when_one_more_request_would_exceed_the_limit() -> None:
    assert not saturated(9, was=False)
    assert saturated(10, was=False)


def test_a_saturated_backend_comes_back_only_at_the_resume_load() -> None:
    assert saturated(9, was=True)
    assert not saturated(8, was=True)
