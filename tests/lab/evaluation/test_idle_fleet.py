import numpy as np
import pytest

from extproc.lab.engine.engine_profile import PROFILES, EngineLimits, EngineProfile
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.idle_fleet import IdleFleet, idle_ttfts_s
from extproc.lab.evaluation.simulated_server import Server, ServerSpec
from extproc.lab.rivals.oracle import ttft_if_sent
from extproc.lab.traffic.arrivals import Arrival

EVERYTHING_COSTS = EngineProfile(
    base_step_s=0.01,
    prefill_token_s=1e-4,
    attention_pair_s=1.3e-8,
    decode_sequence_s=3e-4,
    kv_token_s=2.7e-7,
    kv_cache_tokens=150_000,
    request_s=0.02,
    request_token_s=3e-5,
    speed=0.7,
)
AROUND_CHUNKS = (1, 100, 2047, 2048, 2049, 4096, 5000, 20_480, 26_000)


@pytest.mark.parametrize("profile", [*PROFILES.values(), EVERYTHING_COSTS])
@pytest.mark.parametrize("max_num_batched_tokens", [512, 2048])
def test_it_is_what_an_idle_server_takes(profile: EngineProfile, max_num_batched_tokens: int) -> None:
    limits = EngineLimits(profile.kv_cache_tokens, max_num_batched_tokens=max_num_batched_tokens)
    server = Server(ServerSpec("", profile, limits))
    found = idle_ttfts_s(profile, limits, np.array(AROUND_CHUNKS, np.float64))
    measured = [ttft_if_sent(server, Arrival(3.0, prompt, 10), 3.0) for prompt in AROUND_CHUNKS]
    assert found.tolist() == pytest.approx(measured, abs=1e-9)


def test_the_fastest_machine_is_the_yardstick_whether_it_is_there_or_not() -> None:
    fleet = IdleFleet(parse_fleet("2xa100-8b*0.5:8,a100-8b*1:8@100-,l4-8b*1:8"))
    alone = IdleFleet(parse_fleet("a100-8b*1:256"))
    assert fleet.fastest_ttft_s(300) == alone.fastest_ttft_s(300)
    assert IdleFleet(parse_fleet("a100-8b*0.5:8")).fastest_ttft_s(300) == pytest.approx(
        2 * alone.fastest_ttft_s(300)
    )


def test_which_machine_is_the_fastest_depends_on_the_prompt() -> None:
    quick_start = EngineProfile(0.001, 1e-3, 0.0, 0.0, 100_000)
    quick_prefill = EngineProfile(0.1, 1e-5, 0.0, 0.0, 100_000)
    limits = EngineLimits(100_000)
    fleet = IdleFleet([ServerSpec("", each, limits) for each in (quick_start, quick_prefill)])
    assert fleet.fastest_ttfts_s(np.array([10.0, 1000.0])).tolist() == pytest.approx([0.011, 0.11])
