"""Loads on a server that is an engine model itself, as `extproc profile` would have recorded them."""

from typing import Any

import numpy as np

from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile
from extproc.lab.twin.recording import Columns, Recording, replay

SERVER = EngineProfile(
    base_step_s=6e-3,
    prefill_token_s=7e-4,
    attention_pair_s=2e-7,
    decode_sequence_s=1.5e-3,
    kv_token_s=1.5e-6,
    request_s=1e-2,
    request_token_s=5e-5,
    kv_cache_tokens=32_768,
)
LIMITS = EngineLimits(SERVER.kv_cache_tokens, max_num_seqs=4, block_size=32)
START_S = 1.7e9


def recorded(
    rates: tuple[float, ...],
    prompt_tokens: float,
    output_tokens: float,
    seed: int = 0,
    noise: float = 0.0,
    server: EngineProfile = SERVER,
    limits: EngineLimits = LIMITS,
) -> Columns:
    """Samples by column: 20 s of each rate, lognormal lengths, times off by `noise` as a logarithm."""
    rng = np.random.default_rng(seed)
    at_s = np.concatenate(
        [np.sort(rng.uniform(20 * n, 20 * (n + 1), round(20 * rate))) for n, rate in enumerate(rates)]
    )
    prompts = np.clip(rng.lognormal(np.log(prompt_tokens), 1.0, len(at_s)), 1, 3000).astype(np.int64)
    outputs = np.clip(rng.lognormal(np.log(output_tokens), 0.7, len(at_s)), 2, 500).astype(np.int64)
    done = np.ones(len(at_s), bool)
    unknown = np.full(len(at_s), np.nan)
    timings = replay(
        Recording("vllm-1", START_S, at_s, prompts, outputs, done, unknown, unknown), server, limits
    )
    ttft_s = timings.ttft_s * rng.lognormal(0.0, noise, len(at_s))
    decode_s = (timings.duration_s - timings.ttft_s) * rng.lognormal(0.0, noise, len(at_s))
    return {
        "at_s": START_S + at_s,
        "backend": np.full(len(at_s), "vllm-1", object),
        "is_clean": done,
        "failure": np.full(len(at_s), None, object),
        "input_tokens": prompts.astype(float),
        "output_tokens": outputs.astype(float),
        "token_limit": outputs.astype(float),
        "cached_tokens": unknown,
        "ttft_s": ttft_s,
        "duration_s": ttft_s + decode_s,
    }


def changed(columns: Columns, rows: slice | np.ndarray[Any, Any], **values: Any) -> Columns:
    """The same samples, but with these values in some rows."""
    copied = {name: np.array(column) for name, column in columns.items()}
    for name, value in values.items():
        copied[name][rows] = value
    return copied
