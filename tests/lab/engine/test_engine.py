from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.errors import ConfigError
from extproc.lab.engine.engine import Engine
from extproc.lab.engine.engine_profile import PROFILES, EngineLimits, EngineProfile
from extproc.lab.engine.run import FinishReason, StepResult

UNIT = EngineProfile(
    base_step_s=1.0, prefill_token_s=0.01, decode_sequence_s=0.1, kv_token_s=0.0, kv_cache_tokens=1024
)


def make_engine(**limits: int) -> Engine:
    return Engine(UNIT, EngineLimits(**{"kv_cache_tokens": UNIT.kv_cache_tokens, **limits}))


def steps(engine: Engine, now_s: float = 0.0) -> Iterator[tuple[float, StepResult]]:
    """Every iteration until the engine is idle, with the time of its end."""
    while (duration_s := engine.begin_step(now_s)) is not None:
        now_s += duration_s
        yield now_s, engine.end_step(now_s)


def test_a_request_gets_its_first_token_after_the_prefill_and_one_more_per_step():
    engine = make_engine()
    engine.submit("a", prompt_tokens=100, output_tokens=3, now_s=0.0)
    times = [(now_s, result.produced, result.finished) for now_s, result in steps(engine)]
    assert times == [
        (pytest.approx(2.0), ("a",), ()),
        (pytest.approx(3.1), ("a",), ()),
        (pytest.approx(4.2), ("a",), ("a",)),
    ]


def test_an_idle_engine_has_no_step():
    assert make_engine().begin_step(0.0) is None


def test_ttft_counts_from_submission():
    engine = make_engine()
    engine.submit("a", 100, 2, now_s=5.0)
    assert [result.ttfts_s for _, result in steps(engine, now_s=6.0)] == [(pytest.approx(3.0),), ()]


def test_a_request_without_output_finishes_with_its_prompt():
    engine = make_engine()
    engine.submit("a", 100, 0, now_s=0.0)
    [(_, result)] = list(steps(engine))
    assert result.produced == ()
    assert result.finished == ("a",)
    assert engine.counters.generation_tokens == 0
    assert engine.counters.finished[FinishReason.STOP] == 1


def test_a_long_prompt_is_prefilled_in_chunks_that_slow_the_others_down():
    engine = make_engine(max_num_seqs=8, max_num_batched_tokens=64)
    engine.submit("short", 10, 8, now_s=0.0)
    list(zip(range(2), steps(engine), strict=False))
    undisturbed_s = engine.begin_step(0.0)
    engine.end_step(0.0)
    engine.submit("long", 150, 1, now_s=0.0)
    durations_s = []
    while "long" not in (result := step_once(engine, durations_s)).finished:
        assert result.produced == ("short",)
    # 64 tokens a step, one of them for the sequence that decodes: 63 + 63 + 24.
    assert durations_s == [pytest.approx(1.1 + 0.01 * chunk) for chunk in (63, 63, 24)]
    assert undisturbed_s == pytest.approx(1.1)


def step_once(engine: Engine, durations_s: list[float]) -> StepResult:
    duration_s = engine.begin_step(0.0)
    assert duration_s is not None
    durations_s.append(duration_s)
    return engine.end_step(0.0)


def test_batch_size_is_limited_and_the_rest_wait():
    engine = make_engine(max_num_seqs=2)
    for request_id in "abc":
        engine.submit(request_id, 10, 1, now_s=0.0)
    engine.begin_step(0.0)
    assert (engine.running, engine.waiting) == (2, 1)
    assert engine.end_step(0.0).finished == ("a", "b")
    engine.begin_step(0.0)
    assert engine.end_step(0.0).finished == ("c",)


def test_a_request_counts_as_running_until_its_last_step_has_ended():
    engine = make_engine()
    engine.submit("a", 10, 1, now_s=0.0)
    engine.begin_step(0.0)
    assert engine.running == 1
    assert engine.kv_cache_fraction == pytest.approx(1 / 64)
    engine.end_step(0.0)
    assert engine.running == 0
    assert engine.kv_cache_fraction == 0.0


def test_requests_stuck_before_the_engine_are_not_waiting():
    engine = make_engine(http_limit=2, max_num_seqs=1)
    for request_id in "abcd":
        engine.submit(request_id, 10, 1, now_s=0.0)
    engine.begin_step(0.0)
    assert (engine.running, engine.waiting, engine.stuck) == (1, 1, 2)
    engine.end_step(0.0)
    assert [result.finished for _, result in steps(engine)] == [("b",), ("c",), ("d",)]


def test_ttft_leaves_out_the_time_stuck_before_the_engine():
    engine = make_engine(http_limit=1)
    engine.submit("a", 100, 1, now_s=0.0)
    engine.submit("b", 100, 1, now_s=0.0)
    assert [result.ttfts_s for _, result in steps(engine)] == [(pytest.approx(2.0),), (pytest.approx(2.0),)]


def test_a_full_cache_preempts_the_youngest_and_still_finishes_both():
    engine = make_engine(kv_cache_tokens=64, block_size=16)
    engine.submit("old", 16, 40, now_s=0.0)
    engine.submit("young", 16, 40, now_s=0.0)
    results = [result for _, result in steps(engine)]
    assert engine.counters.preemptions > 0
    assert [request_id for result in results for request_id in result.finished] == ["old", "young"]
    for request_id in ("old", "young"):
        assert sum(result.produced.count(request_id) for result in results) == 40
    assert engine.counters.prompt_tokens == 32


def test_a_request_that_does_not_fit_is_not_overtaken():
    engine = make_engine(kv_cache_tokens=64, block_size=16)
    engine.submit("first", 30, 10, now_s=0.0)
    engine.submit("large", 40, 1, now_s=0.0)
    engine.submit("small", 5, 1, now_s=0.0)
    finished = [request_id for _, result in steps(engine) for request_id in result.finished]
    assert finished == ["first", "large", "small"]


def test_an_abort_during_a_step_frees_its_memory_and_yields_nothing():
    engine = make_engine()
    engine.submit("a", 100, 5, now_s=0.0)
    engine.submit("b", 100, 1, now_s=0.0)
    engine.begin_step(0.0)
    engine.abort("a")
    result = engine.end_step(0.0)
    assert result.produced == ("b",)
    assert engine.kv_cache_fraction == 0.0
    assert engine.counters.finished[FinishReason.ABORT] == 1


def test_a_reused_id_does_not_inherit_the_aborted_step():
    engine = make_engine()
    engine.submit("a", 10, 1, now_s=0.0)
    engine.begin_step(0.0)
    engine.abort("a")
    engine.submit("a", 10, 1, now_s=0.0)
    assert engine.end_step(0.0).finished == ()
    assert [result.finished for _, result in steps(engine)] == [("a",)]


def test_aborting_an_unknown_request_is_no_error():
    engine = make_engine()
    engine.abort("nobody")
    assert engine.counters.finished[FinishReason.ABORT] == 0


@pytest.mark.parametrize(("prompt_tokens", "output_tokens"), [(1000, 30), (0, 5), (5, -1)])
def test_an_impossible_request_is_refused(prompt_tokens, output_tokens):
    with pytest.raises(ValueError, match="tokens"):
        make_engine().submit("a", prompt_tokens, output_tokens, now_s=0.0)


@pytest.mark.parametrize("http_limit", [1, 2])
def test_an_id_in_use_is_refused(http_limit):
    engine = make_engine(http_limit=http_limit)
    engine.submit("a", 10, 1, now_s=0.0)
    engine.submit("b", 10, 1, now_s=0.0)
    with pytest.raises(ValueError, match="already"):
        engine.submit("b", 10, 1, now_s=0.0)


def test_all_faults_in_the_limits_are_reported():
    with pytest.raises(ConfigError, match=r"max_num_seqs.*http_limit.*kv_cache_tokens"):
        EngineLimits(kv_cache_tokens=8, max_num_seqs=0, http_limit=0)


def test_every_sequence_of_a_batch_has_its_token_in_the_budget():
    with pytest.raises(ConfigError, match="max_num_batched_tokens must be at least max_num_seqs"):
        EngineLimits(kv_cache_tokens=1024, max_num_seqs=9, max_num_batched_tokens=8)


def test_a_faster_machine_finishes_the_same_work_sooner():
    def finish_s(profile: EngineProfile) -> float:
        engine = Engine(profile, EngineLimits(kv_cache_tokens=27_000))
        for i in range(20):
            engine.submit(str(i), 500, 50, now_s=0.0)
        return list(steps(engine))[-1][0]

    assert finish_s(PROFILES["l4-8b"]) > 3 * finish_s(PROFILES["a100-8b"])


def test_what_others_have_computed_is_not_computed_again():
    engine = make_engine()
    engine.submit("a", 100, 1, now_s=0.0, content=range(6))
    list(steps(engine))
    engine.submit("b", 100, 1, now_s=0.0, content=(0, 1, 2, 7, 8, 9))
    assert engine.begin_step(0.0) == pytest.approx(1.0 + 0.01 * (100 - 3 * 16))
    engine.end_step(0.0)
    assert (engine.counters.prefix_queries, engine.counters.prefix_hits) == (200, 48)


def test_a_prompt_that_is_there_as_a_whole_still_computes_its_end():
    engine = make_engine()
    for request_id in "ab":
        engine.submit(request_id, 96, 1, now_s=0.0, content=range(6))
        list(steps(engine))
    assert engine.counters.prefix_hits == 80


def test_the_answer_is_there_for_the_next_turn():
    engine = make_engine()
    engine.submit("first turn", 40, 60, now_s=0.0, content=range(6))
    list(steps(engine))
    engine.submit("second turn", 120, 1, now_s=0.0, content=range(7))
    engine.begin_step(0.0)
    assert engine.counters.prefix_hits == 96


def test_of_two_prompts_that_are_alike_the_later_finds_the_earlier_one_still_running():
    engine = make_engine()
    engine.submit("a", 64, 5, now_s=0.0, content=range(4))
    engine.begin_step(0.0)
    engine.end_step(0.0)
    engine.submit("b", 70, 5, now_s=0.0, content=range(4))
    engine.begin_step(0.0)
    assert engine.counters.prefix_hits == 64
    assert engine.kv_cache_fraction == pytest.approx((4 + 1 + 1) / 64)  # four of them shared


def test_what_was_used_longest_ago_is_forgotten_first():
    engine = make_engine(kv_cache_tokens=160)
    for request_id, first in (("a", 100), ("b", 200), ("a again", 100), ("c", 300)):
        engine.submit(request_id, 65, 0, now_s=0.0, content=range(first, first + 4))
        list(steps(engine))
    hits = engine.counters.prefix_hits
    assert hits == 64
    for request_id, first in (("a once more", 100), ("b again", 200)):
        engine.submit(request_id, 65, 0, now_s=0.0, content=range(first, first + 4))
        list(steps(engine))
    assert engine.counters.prefix_hits - hits == 64


LIMITS = st.builds(
    EngineLimits,
    kv_cache_tokens=st.integers(128, 400),
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(6, 100),
    block_size=st.sampled_from([1, 16]),
    http_limit=st.none() | st.integers(1, 5),
)
SUBMIT = st.tuples(st.just("submit"), st.integers(1, 90), st.integers(0, 30))
ABORT = st.tuples(st.just("abort"), st.integers(0, 40), st.just(0))
STEP = st.tuples(st.just("step"), st.just(0), st.just(0))


class Observed:
    """Drives an engine and checks on every occasion what must always hold."""

    def __init__(self, limits: EngineLimits) -> None:
        self.engine = Engine(UNIT, limits)
        self.asked: dict[str, int] = {}
        self.produced: dict[str, int] = {}
        self.begun: list[str] = []
        self.finished: list[str] = []
        self.aborted: set[str] = set()
        self.now_s = 0.0

    def submit(self, prompt_tokens: int, output_tokens: int) -> None:
        request_id = str(len(self.asked))
        self.asked[request_id] = output_tokens
        self.produced[request_id] = 0
        self.engine.submit(request_id, prompt_tokens, output_tokens, self.now_s)

    def abort(self, number: int, _: int) -> None:
        request_id = str(number)
        if request_id in self.asked and request_id not in self.finished:
            self.aborted.add(request_id)
        self.engine.abort(request_id)

    def step(self, *_: int) -> bool:
        duration_s = self.engine.begin_step(self.now_s)
        self.check()
        if duration_s is None:
            return False
        assert duration_s > 0
        self.now_s += duration_s
        result = self.engine.end_step(self.now_s)
        for request_id in result.produced:
            if not self.produced[request_id]:
                self.begun.append(request_id)
            self.produced[request_id] += 1
        self.finished += result.finished
        self.check()
        return True

    def check(self) -> None:
        engine, limits = self.engine, self.engine.limits
        assert 0.0 <= engine.kv_cache_fraction <= 1.0
        assert engine.running <= limits.max_num_seqs
        assert limits.http_limit is None or engine.running + engine.waiting <= limits.http_limit
        assert engine.stuck == 0 or limits.http_limit is not None
        in_engine = engine.running + engine.waiting + engine.stuck
        assert in_engine == len(self.asked) - len(self.finished) - len(self.aborted)


@settings(max_examples=300, deadline=None)
@given(LIMITS, st.lists(SUBMIT | ABORT | STEP | STEP, max_size=60))
def test_every_request_finishes_in_order_with_all_its_tokens_or_is_aborted(limits, actions):
    observed = Observed(limits)
    for action, first, second in actions:
        getattr(observed, action)(first, second)
        observed.check()
    for _ in range(100_000):
        if not observed.step():
            break
    assert set(observed.asked) == set(observed.finished) | observed.aborted
    assert set(observed.finished).isdisjoint(observed.aborted)
    assert all(
        observed.produced[request_id] == observed.asked[request_id] for request_id in observed.finished
    )
    assert all(observed.produced[request_id] <= observed.asked[request_id] for request_id in observed.aborted)
    assert observed.begun == sorted(observed.begun, key=int)
    assert observed.engine.kv_cache_fraction == 0.0
    assert observed.engine.counters.generation_tokens == sum(observed.produced.values())


@settings(max_examples=50, deadline=None)
@given(LIMITS, st.lists(SUBMIT, min_size=1, max_size=20))
def test_the_same_requests_always_run_the_same_way(limits, requests):
    def run() -> list[tuple[float, StepResult]]:
        engine = Engine(UNIT, limits)
        for i, (_, prompt_tokens, output_tokens) in enumerate(requests):
            engine.submit(str(i), prompt_tokens, output_tokens, now_s=0.0)
        return list(steps(engine))

    assert run() == run()
