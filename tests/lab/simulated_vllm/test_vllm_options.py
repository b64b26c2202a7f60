import pytest

from extproc.errors import ConfigError
from extproc.lab.engine.engine_profile import PROFILES
from extproc.lab.simulated_vllm.vllm_options import SimOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "h900"}, "profile must be one of .*l4-8b"),
        ({"models": ()}, "models"),
        ({"speed": 0.0}, "speed"),
        ({"fail_fraction": 1.5}, "fail_fraction"),
        ({"gauge_delay_s": -0.1}, "gauge_delay_s"),
        ({"port": 70_000}, "port"),
        ({"kv_cache_tokens": 1000, "max_model_len": 1001}, "max_model_len"),
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"speed": -1.0, "port": -1}, "port.*speed"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SimOptions(**options)


def test_the_kv_cache_is_the_machines_unless_given():
    assert SimOptions(profile="a100-8b").limits().kv_cache_tokens == PROFILES["a100-8b"].kv_cache_tokens
    assert SimOptions(kv_cache_tokens=9000).limits().kv_cache_tokens == 9000
