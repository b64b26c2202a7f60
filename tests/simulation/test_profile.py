from collections import deque
from dataclasses import dataclass, replace
from statistics import median

import pytest

from extproc.simulation.engine import Engine
from extproc.simulation.limits import EngineLimits
from extproc.simulation.profile import PROFILES


@dataclass(frozen=True)
class Load:
    """A closed loop against a real vLLM server, and what it showed."""

    prompt_tokens: int
    concurrency: int
    tokens_per_s: float
    ttft_p50_s: float


# Real vLLM 0.32.0, CPU build, tiny Llama, max_num_seqs 4, 64 output tokens. Repeats differed by up to 25 %.
MEASURED = [
    Load(16, 1, 274, 0.012),
    Load(16, 4, 818, 0.024),
    Load(16, 16, 901, 0.864),
    Load(256, 1, 255, 0.036),
    Load(256, 4, 663, 0.104),
    Load(256, 16, 672, 1.174),
    Load(1024, 1, 157, 0.133),
    Load(1024, 4, 286, 0.430),
    Load(1024, 16, 290, 2.495),
]


def simulate(load: Load, requests: int) -> tuple[float, float]:
    """Tokens per second and median TTFT of a closed loop in virtual time."""
    profile = PROFILES["cpu-tiny"]
    engine = Engine(profile, EngineLimits(profile.kv_cache_tokens, max_num_seqs=4, block_size=32))
    pending = deque(str(i) for i in range(requests))
    ttfts_s: list[float] = []
    now_s = 0.0
    for _ in range(load.concurrency):
        engine.submit(pending.popleft(), load.prompt_tokens, 64, now_s)
    while (duration_s := engine.begin_step(now_s)) is not None:
        now_s += duration_s
        result = engine.end_step(now_s)
        ttfts_s += result.ttfts_s
        for _ in result.finished:
            if pending:
                engine.submit(pending.popleft(), load.prompt_tokens, 64, now_s)
    return engine.counters.generation_tokens / now_s, median(ttfts_s)


@pytest.mark.parametrize("load", MEASURED, ids=lambda load: f"{load.prompt_tokens}x{load.concurrency}")
def test_cpu_tiny_reproduces_the_measured_throughput(load):
    tokens_per_s, _ = simulate(load, requests=80)
    assert tokens_per_s == pytest.approx(load.tokens_per_s, rel=0.15)


@pytest.mark.parametrize(
    "load", [load for load in MEASURED if load.concurrency == 16], ids=lambda load: str(load.prompt_tokens)
)
def test_cpu_tiny_reproduces_the_measured_queueing(load):
    _, ttft_p50_s = simulate(load, requests=160)
    assert ttft_p50_s == pytest.approx(load.ttft_p50_s, rel=0.25)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_twice_the_speed_takes_half_the_time(profile):
    work = {"prefill_tokens": 100, "decoding": 5, "kv_tokens": 4000}
    faster = replace(profile, speed=2.0)
    assert faster.step_duration_s(**work) == pytest.approx(profile.step_duration_s(**work) / 2)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
@pytest.mark.parametrize("more", ["prefill_tokens", "decoding", "kv_tokens"])
def test_more_work_takes_longer(profile, more):
    work = {"prefill_tokens": 100, "decoding": 5, "kv_tokens": 4000}
    assert profile.step_duration_s(**{**work, more: work[more] + 1}) > profile.step_duration_s(**work)
