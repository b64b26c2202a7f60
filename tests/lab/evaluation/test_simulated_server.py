"""The server takes runs of iterations at once; here they are held against iterations one by one."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.step_by_step_engine import StepByStepEngine

from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile
from extproc.lab.engine.run import TICK_S
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.simulated_server import Server, ServerSpec

MACHINE = EngineProfile(
    base_step_s=0.01,
    prefill_token_s=1e-4,
    attention_pair_s=1.3e-6,
    decode_sequence_s=3e-4,
    kv_token_s=2.7e-7,
    kv_cache_tokens=512,
)


@dataclass(frozen=True)
class Given:
    at_s: float
    prompt_tokens: int
    output_tokens: int
    content: tuple[int, ...]


@dataclass
class Seen:
    """Every event with its exact time, and what the gauges read at some times."""

    events: list[tuple[float, list[str], list[str]]] = field(default_factory=list)
    gauges: list[tuple[int, int, float, int]] = field(default_factory=list)
    preemptions: int = 0
    hits: int = 0


def in_runs(limits: EngineLimits, requests: list[Given], looks_s: list[float]) -> Seen:
    server, seen = Server(ServerSpec("", MACHINE, limits)), Seen()
    actions = sorted([(each.at_s, number, each) for number, each in enumerate(requests)])
    looks = sorted(looks_s)
    began: set[str] = set()
    while actions or server.run_ends_s is not None:
        ends_s = server.run_ends_s
        upcoming_s = actions[0][0] if actions else None
        due_s = min(each for each in (ends_s, upcoming_s) if each is not None)
        while looks and looks[0] <= due_s:
            gauges = server.gauges(looks.pop(0))
            seen.gauges.append(
                (gauges.running, gauges.waiting, gauges.kv_cache_fraction, gauges.generation_tokens)
            )
        if upcoming_s is not None and upcoming_s == due_s:
            at_s, number, each = actions.pop(0)
            server.submit(str(number), each.prompt_tokens, each.output_tokens, at_s, each.content)
        else:
            result = server.end_run(due_s)
            new = [key for key in result.begun if key not in began]
            began.update(new)
            if new or result.finished:
                seen.events.append((due_s, new, result.finished))
    counters = server.engine.counters
    seen.preemptions, seen.hits = counters.preemptions, counters.prefix_hits
    return seen


def step_by_step(limits: EngineLimits, requests: list[Given], looks_s: list[float]) -> Seen:
    engine, seen = StepByStepEngine(MACHINE, limits), Seen()
    actions = sorted([(each.at_s, number, each) for number, each in enumerate(requests)])
    looks = sorted(looks_s)
    began: set[str] = set()
    generated, idle_s, ticks, ends_s = 0, 0.0, 0, None
    while actions or ends_s is not None:
        upcoming_s = actions[0][0] if actions else None
        due_s = min(each for each in (ends_s, upcoming_s) if each is not None)
        while looks and looks[0] <= due_s:
            looks.pop(0)
            used = 1 - len(engine.free) / limits.kv_cache_blocks
            seen.gauges.append((len(engine.running), len(engine.waiting), used, generated))
        if upcoming_s is not None and upcoming_s == due_s:
            at_s, number, each = actions.pop(0)
            engine.submit(str(number), each.prompt_tokens, each.output_tokens, each.content)
            if ends_s is not None:
                continue
            idle_s, ticks = at_s, 0
        else:
            produced, finished = engine.end()
            generated += len(produced)
            new = [key for key in produced if key not in began]
            began.update(new)
            if new or finished:
                seen.events.append((due_s, new, finished))
        step = engine.begin()
        ticks += step or 0
        ends_s = None if step is None else idle_s + ticks * TICK_S
    seen.preemptions, seen.hits = engine.preemptions, engine.hits
    return seen


LIMITS = st.builds(
    EngineLimits,
    kv_cache_tokens=st.integers(130, 260),
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(6, 100),
    block_size=st.sampled_from([1, 3, 16]),
    http_limit=st.none() | st.integers(1, 8),
)
CONTENTS = st.builds(
    lambda conversation, blocks: tuple(range(1000 * conversation, 1000 * conversation + blocks)),
    st.integers(0, 2),
    st.integers(0, 12),
)
REQUESTS = st.lists(
    st.builds(Given, st.floats(0, 0.5), st.integers(1, 90), st.integers(0, 40), CONTENTS), max_size=25
)


@settings(max_examples=400, deadline=None)
@given(LIMITS, REQUESTS, st.lists(st.floats(0, 3), max_size=8))
def test_runs_are_the_same_as_iterations_one_by_one_to_the_last_digit(
    limits: EngineLimits, requests: list[Given], looks_s: list[float]
) -> None:
    assert in_runs(limits, requests, looks_s) == step_by_step(limits, requests, looks_s)


def test_the_compared_runs_have_preemptions_and_prefix_hits() -> None:
    limits = EngineLimits(kv_cache_tokens=160, max_num_seqs=6)
    shared = tuple(range(3))
    requests = [Given(0.1 * number, 60, 30, shared) for number in range(8)]
    seen = in_runs(limits, requests, [])
    assert seen == step_by_step(limits, requests, [])
    assert seen.preemptions > 0
    assert seen.hits > 0


def test_who_makes_room_finds_the_blocks_gone_that_older_ones_took_before() -> None:
    """The last free block holds what "10" begins with; "9" takes it, and then "10" is preempted."""
    limits = EngineLimits(kv_cache_tokens=138, max_num_seqs=3, max_num_batched_tokens=7, block_size=3)
    requests = [Given(0.0, 1, 0, ())] * 8
    requests += [Given(0.0, 1, 10, (0,)), Given(0.0, 56, 36, ()), Given(0.0, 13, 34, (0,))]
    seen = in_runs(limits, requests, [])
    assert seen == step_by_step(limits, requests, [])
    assert seen.preemptions == 1


@pytest.mark.parametrize("seed", range(40))
def test_crowded_servers_preempt_at_the_same_iterations(seed: int) -> None:
    """Hypothesis likes small examples; here memory runs out in the midst of runs."""
    rng = np.random.default_rng(seed)
    limits = EngineLimits(
        kv_cache_tokens=int(rng.integers(130, 260)),
        max_num_seqs=6,
        max_num_batched_tokens=100,
        block_size=int(rng.choice([1, 3, 16])),
    )
    starts = (0, 0, 1000, 2000)
    requests = [
        Given(
            float(rng.uniform(0, 0.5)),
            int(rng.integers(1, 90)),
            int(rng.integers(0, 40)),
            tuple(range(start, start + int(rng.integers(0, 12))))
            if (start := int(rng.choice(starts)))
            else (),
        )
        for _ in range(15)
    ]
    looks_s = np.linspace(0.05, 2.0, 30).tolist()
    assert in_runs(limits, requests, looks_s) == step_by_step(limits, requests, looks_s)


def seconds_at(pace: float) -> float:
    (spec,) = parse_fleet("a100-8b*1:8")
    server = Server(spec, lambda _: pace)
    server.submit("0", 1000, 100, 0.0)
    ended_s = 0.0
    while server.run_ends_s is not None:
        ended_s = server.run_ends_s
        server.end_run(ended_s)
    return ended_s


def test_a_machine_at_half_its_pace_takes_twice_as_long() -> None:
    assert seconds_at(0.5) == pytest.approx(2 * seconds_at(1.0), rel=1e-6)
