import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from extproc.lab.engine.engine_profile import PROFILES, EngineLimits
from extproc.lab.twin.agreement import agreement
from extproc.lab.twin.recording import Recording

MEASURED = Path(__file__).with_name("measured_vllm.csv")
"""Requests to a real vLLM 0.32 (CPU build, tiny Llama, max_num_seqs 4), to which nothing was fitted."""
LOADS = {"long-idle": 0.1, "short-overload": 0.1, "mix-busy": 0.25, "long-overload": 0.1, "short-idle": 0.15}
"""And by how much the twin's figures are off at most."""


def measured(load: str) -> Recording:
    with MEASURED.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["load"] == load]
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "load"}
    whole = {name: columns.pop(name).astype(np.int64) for name in ("prompt_tokens", "output_tokens")}
    return Recording(backend="", began_s=0.0, is_complete=np.ones(len(rows), bool), **whole, **columns)


@pytest.mark.parametrize(("load", "most"), LOADS.items())
def test_cpu_tiny_predicts_what_a_real_server_did(load: str, most: float) -> None:
    profile = PROFILES["cpu-tiny"]
    limits = EngineLimits(profile.kv_cache_tokens, max_num_seqs=4, block_size=32)
    found = agreement(load, measured(load), profile, limits)
    for figure in (found.ttft_p50_s, found.ttft_p90_s, found.tokens_per_s, found.token_s):
        assert abs(figure.error) < most


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_twice_the_speed_takes_half_the_time(profile):
    work = {"prefill_tokens": 100, "decoding": 5, "kv_tokens": 4000, "attention_pairs": 5050}
    faster = replace(profile, speed=2.0)
    assert faster.step_ticks().step(**work) == pytest.approx(profile.step_ticks().step(**work) / 2)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
@pytest.mark.parametrize("more", ["prefill_tokens", "decoding", "kv_tokens"])
def test_more_work_takes_longer(profile, more):
    work = {"prefill_tokens": 100, "decoding": 5, "kv_tokens": 4000, "attention_pairs": 5050}
    step = profile.step_ticks().step
    assert step(**{**work, more: work[more] + 1}) > step(**work)
