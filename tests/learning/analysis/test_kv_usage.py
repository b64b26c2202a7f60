import numpy as np
import pytest
from support.observed import observed

from extproc.learning.analysis.kv_usage import KvUsage, kv_usage_of
from extproc.learning.dataset import Observations


def found(observations: Observations) -> KvUsage:
    return kv_usage_of(observations, np.random.default_rng(0))


def test_a_full_cache_that_doubles_ttft_is_distinguished_from_load() -> None:
    rng = np.random.default_rng(1)
    load = rng.integers(1, 40, 2000).astype(float)
    kv = np.clip(load / 40 + rng.normal(0, 0.2, 2000), 0, 1)
    ttft_s = 0.05 * load * np.where(kv >= 0.9, 2.0, 1.0) * np.exp(rng.normal(0, 0.2, 2000))
    usage = found(observed(ttft_s, load=load, kv_cache_fraction=kv))
    assert usage.ttft_ratio == pytest.approx(2, rel=0.1)
    assert usage.low is not None
    assert usage.high is not None
    assert 1.7 < usage.low < 2 < usage.high < 2.4


def test_a_full_cache_that_only_comes_with_load_has_no_effect() -> None:
    rng = np.random.default_rng(1)
    load = rng.integers(1, 40, 2000).astype(float)
    kv = np.clip(load / 40 + rng.normal(0, 0.2, 2000), 0, 1)
    usage = found(observed(0.05 * load * np.exp(rng.normal(0, 0.2, 2000)), load=load, kv_cache_fraction=kv))
    assert usage.low is not None
    assert usage.high is not None
    assert usage.low < 1 < usage.high


def test_a_slow_backend_with_a_full_cache_is_not_compared_with_a_fast_one() -> None:
    is_slow = np.arange(400) % 2
    observations = observed(
        1 + 9.0 * is_slow, backend=is_slow, fleet=("a", "b"), load=5, kv_cache_fraction=is_slow
    )
    usage = found(observations)
    assert (usage.ttft_ratio, usage.high_count, usage.compared_count) == (None, 200, 0)


@pytest.mark.parametrize("count", [0, 29])
def test_few_requests_at_high_usage_say_nothing(count: int) -> None:
    usage = found(observed(np.ones(100), load=1, kv_cache_fraction=np.arange(100) < count))
    assert usage.ttft_ratio is None
    assert usage.unstated == f"{count} requests met a KV usage of 0.9 or more"
