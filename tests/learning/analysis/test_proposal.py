import numpy as np
import pytest
from support.observed import observed

from extproc.config.stages import Config, parse_config
from extproc.learning.analysis.knee import Knee
from extproc.learning.analysis.proposal import Setting, propose, to_yaml
from extproc.learning.dataset import Observations

BACKENDS = "backends:\n  - {name: vllm-1, url: 'http://127.0.0.1:8101'}\n"


def knee(backend: str, at_limit: float | None, load: float = 39.6) -> Knee:
    return Knee(backend, 500, load, load - 2, load + 2, 1.0, 0.01, 0.5, at_limit)


def values(settings: tuple[Setting, ...]) -> dict[str, float | str | None]:
    return {setting.field: setting.value for setting in settings}


def parsed(settings: tuple[Setting, ...]) -> Config:
    return parse_config(BACKENDS + to_yaml(settings), "proposal")


@pytest.fixture
def observations() -> Observations:
    load = np.arange(400) % 100
    return observed(0.2 + 0.02 * load + 0.5 * np.maximum(load - 40, 0), load=load)


def fleet(**running: int) -> Observations:
    """100 requests for each server, and what it ran meanwhile."""
    names, tops = tuple(running), list(running.values())
    backend = np.repeat(np.arange(len(names)), 100)
    return observed(np.full(len(backend), 1.0), backend, names, load=90, num_running=np.repeat(tops, 100))


def test_the_proposal_is_configuration(observations: Observations) -> None:
    settings = propose(observations, [knee("vllm-1", 49.3)], 5.0)
    config = parsed(settings)
    assert config.guard.max_active == 49
    assert config.zones.low_s == 0.36  # at a load of 8, of 0 to 9
    assert values(settings) == {"max_active": 49, "low_s": 0.36}


def test_each_line_says_where_it_is_from_and_what_follows(observations: Observations) -> None:
    lines = to_yaml(propose(observations, [knee("vllm-1", 49.3)], 5.0)).splitlines()
    assert [lines[0], lines[3]] == ["guard:", "  max_active: 49"]
    assert lines[1].startswith("  # vllm-1 runs 0 at once, and its TTFT passes 5 s at a load of 49")
    assert lines[2].startswith("  # Effect: 51% of the recorded requests met such a load")
    assert "Effect: for 92% of the recorded requests a model would be asked" in lines[6]


def test_a_limit_is_never_below_what_the_server_runs_at_once() -> None:
    assert values(propose(fleet(one=4), [knee("one", 2)], 5.0))["max_active"] == 4


def test_a_limit_refuses_no_request_that_is_answered_in_time() -> None:
    assert values(propose(fleet(one=4), [knee("one", 21.3, load=3)], 2.0))["max_active"] == 21


def test_equal_servers_get_the_largest_of_their_limits() -> None:
    settings = propose(fleet(one=16, two=16), [knee("one", 16), knee("two", 18)], 5.0)
    assert values(settings)["max_active"] == 18


@pytest.mark.parametrize("other", [knee("large", 64), Knee("large", 9)])
def test_unequal_servers_get_auto_also_where_the_larger_one_was_never_full(other: Knee) -> None:
    settings = propose(fleet(small=2, large=40), [knee("small", 16), other], 5.0)
    assert parsed(settings).guard.max_active == "auto"
    assert settings[0].reason.startswith(
        "small runs 2 at once, and its TTFT passes 5 s at a load of 16; large"
    )


def test_a_promise_that_was_kept_at_all_loads_seen_leaves_the_limit_to_the_sidecar() -> None:
    assert values(propose(fleet(one=4), [knee("one", None)], 60.0))["max_active"] == "auto"


@pytest.mark.parametrize(
    "knees", [[], [Knee("vllm-1", 9, unstated="too few samples: 9, at least 100 are needed")]]
)
def test_without_a_knee_nothing_is_proposed(knees: list[Knee], observations: Observations) -> None:
    settings = propose(observations, knees, 5.0)
    assert set(values(settings).values()) == {None}
    assert parse_config(BACKENDS + to_yaml(settings), "proposal") == parse_config(BACKENDS, "none")
    assert to_yaml(settings).count("not proposed: ") == 2


def test_a_name_cannot_add_lines_to_the_configuration(observations: Observations) -> None:
    settings = propose(observations, [knee("x\nguard:\n  max_active: 1\u2028#", 40)], 5.0)
    assert parsed(settings).guard.max_active == 40
    assert to_yaml(settings).isascii()


def test_a_knee_below_one_still_lets_a_request_in() -> None:
    settings = propose(observed(np.full(50, 3.0), load=0), [knee("vllm-1", 0.3, load=0.3)], 5.0)
    assert parsed(settings).guard.max_active == 1


def test_a_tiny_ttft_is_a_number_in_yaml() -> None:
    observations = observed(np.where(np.arange(200) < 100, 2e-5, 9.0), load=np.repeat([1, 50], 100))
    assert parsed(propose(observations, [knee("vllm-1", 40, load=30)], 5.0)).zones.low_s == 2e-5


def test_zones_that_the_samples_do_not_show_are_not_proposed() -> None:
    busy = observed(np.full(100, 6.0), load=np.arange(100) % 20)
    settings = values(propose(busy, [knee("vllm-1", 10, load=10)], 5.0))
    assert (settings["max_active"], settings["low_s"]) == (10, None)
    no_light_load = observed(np.linspace(0.1, 9, 100), load=np.linspace(20, 90, 100))
    assert values(propose(no_light_load, [knee("vllm-1", 45)], 5.0))["low_s"] is None
