from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import pytest

from extproc.learning.dataset import clean_observations
from extproc.learning.features import FEATURES
from extproc.learning.fit import fit
from extproc.learning.model_file import ModelFile, dump

Columns = dict[str, np.ndarray[Any, Any]]


def fleet_samples(
    n: int = 1200,
    slowness: tuple[float, ...] = (1.0, 1.0),
    seed: int = 1,
    swing: float = 12,
    is_balanced: bool = True,
) -> Columns:
    """Requests on backends that are `slowness` times slower than TTFT = 0.1 s + 30 ms a request + input.

    The policy behind them balances TTFT, so that the fast machines carry more load; or else the load. The
    estimate knows all of it but the input.
    """
    rng = np.random.default_rng(seed)
    slow = np.array(slowness)
    at_s = 1.7e9 + np.arange(n) * 0.1
    backend = rng.integers(len(slow), size=n)
    demand = 60 + swing * np.sin(np.arange(n) / 60) + rng.normal(0, 4, n)
    share = (1 / slow) * len(slow) / (1 / slow).sum() if is_balanced else np.ones(len(slow))
    load = np.clip(np.round(demand * share[backend]), 0, None)
    tokens = np.round(np.clip(rng.lognormal(6.5, 0.7, n), 10, 8000))
    ttft_s = slow[backend] * (0.1 + 0.03 * load + 0.0002 * tokens * (1 + load / 40))
    return {
        "at_s": at_s,
        "backend": np.array([f"vllm-{index}" for index in backend], dtype=object),
        "is_stream": np.ones(n, bool),
        "is_clean": np.ones(n, bool),
        "scrape_age_s": np.full(n, 0.05),
        "expected_cached_tokens": np.zeros(n),
        "cached_tokens": np.full(n, np.nan),
        "ttft_s": ttft_s * np.exp(rng.normal(0, 0.1, n)),
        "num_running": np.minimum(load, 48.0),
        "load": load,
        "num_waiting": np.zeros(n),
        "kv_cache_fraction": np.minimum(load / 130, 1.0),
        "input_tokens": tokens,
        "own_prompt_s": slow[backend] * 0.1,
        "prompts_ahead_s": np.zeros(n),
        "turns_s": slow[backend] * 0.03 * load,
        "crowding_s": np.zeros(n),
    }


@pytest.fixture(scope="session")
def samples_of() -> Callable[..., Columns]:
    return fleet_samples


@pytest.fixture(scope="session")
def model_file() -> ModelFile:
    return fit(clean_observations(fleet_samples())[0], seed=7, trained_at_s=1.7e9).model_file


@pytest.fixture(scope="session")
def model_bytes(model_file: ModelFile) -> bytes:
    return dump(model_file)


@pytest.fixture(scope="session")
def grown() -> lightgbm.Booster:
    """Three trees of four leaves, as LightGBM grows them."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, 100, (500, len(FEATURES)))
    parameters = {
        "num_leaves": 4,
        "use_missing": False,
        "num_threads": 1,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    target = np.log1p(rows[:, 1] / 20 + rows[:, 4] / 50)
    data = lightgbm.Dataset(rows, target, feature_name=list(FEATURES), params={"verbose": -1})
    return lightgbm.train(parameters, data, num_boost_round=3)
