import numpy as np
import pytest
from support.observed import observed

from extproc.config.stages import Config, parse_config
from extproc.learning.analysis.knee import Knee
from extproc.learning.analysis.proposal import Setting, propose, to_yaml
from extproc.learning.dataset import Observations

BACKENDS = "backends:\n  - {name: vllm-1, url: 'http://127.0.0.1:8101'}\n"


def knee(backend: str, load: float) -> Knee:
    return Knee(backend, 500, load, load - 2, load + 2, 1.0, 0.01, 0.5, None)


def values(settings: tuple[Setting, ...]) -> dict[str, float | None]:
    return {setting.field: setting.value for setting in settings}


def parsed(settings: tuple[Setting, ...]) -> Config:
    return parse_config(BACKENDS + to_yaml(settings), "proposal")


@pytest.fixture
def observations() -> Observations:
    load = np.arange(400) % 100
    return observed(0.2 + 0.02 * load + 0.5 * np.maximum(load - 40, 0), load=load)


def test_the_proposal_is_configuration(observations: Observations) -> None:
    settings = propose(observations, [knee("vllm-1", 39.6)], 5.0)
    config = parsed(settings)
    assert (config.guard.max_active, config.guard.resume_active) == (40, 32)
    assert config.zones.low_s == 0.36  # at a load of 8, of 0 to 9
    assert values(settings) == {"max_active": 40, "resume_active": 32, "low_s": 0.36}


def test_each_line_says_where_it_is_from(observations: Observations) -> None:
    lines = to_yaml(propose(observations, [knee("vllm-1", 39.6)], 5.0)).splitlines()
    assert [lines[0], lines[2]] == ["guard:", "  max_active: 40"]
    assert lines[1].startswith("  # the knee of TTFT over load, 95 % interval: vllm-1 40 (38 to 42). ")
    assert sum("#" in line for line in lines) == 3


def test_the_guard_is_for_the_largest_of_the_knees(observations: Observations) -> None:
    settings = propose(observations, [knee("small", 16), Knee("idle", 9), knee("large", 64)], 5.0)
    assert values(settings)["max_active"] == 64
    assert "small 16 (14 to 18), large 64 (62 to 66); the largest" in settings[0].reason


@pytest.mark.parametrize(
    "knees", [[], [Knee("vllm-1", 9, unstated="too few samples: 9, at least 100 are needed")]]
)
def test_without_a_knee_nothing_is_proposed(knees: list[Knee], observations: Observations) -> None:
    settings = propose(observations, knees, 5.0)
    assert set(values(settings).values()) == {None}
    assert parse_config(BACKENDS + to_yaml(settings), "proposal") == parse_config(BACKENDS, "none")
    assert to_yaml(settings).count("not proposed: ") == 3


def test_a_name_cannot_add_lines_to_the_configuration(observations: Observations) -> None:
    settings = propose(observations, [knee("x\nguard:\n  max_active: 1\u2028#", 40)], 5.0)
    assert parsed(settings).guard.max_active == 40
    assert to_yaml(settings).isascii()


def test_a_knee_below_one_still_lets_a_request_in() -> None:
    settings = propose(observed(np.full(50, 3.0), load=0), [knee("vllm-1", 0.3)], 5.0)
    assert (parsed(settings).guard.max_active, parsed(settings).guard.resume_active) == (1, 0)


def test_a_tiny_ttft_is_a_number_in_yaml() -> None:
    observations = observed(np.where(np.arange(200) < 100, 2e-5, 9.0), load=np.repeat([1, 50], 100))
    assert parsed(propose(observations, [knee("vllm-1", 30)], 5.0)).zones.low_s == 2e-5


def test_zones_that_the_samples_do_not_show_are_not_proposed() -> None:
    busy = observed(np.full(100, 6.0), load=np.arange(100) % 20)
    settings = values(propose(busy, [knee("vllm-1", 10)], 5.0))
    assert (settings["max_active"], settings["low_s"]) == (10, None)
    no_light_load = observed(np.linspace(0.1, 9, 100), load=np.linspace(20, 90, 100))
    assert values(propose(no_light_load, [knee("vllm-1", 40)], 5.0))["low_s"] is None
