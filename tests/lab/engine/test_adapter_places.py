"""Requests of this many adapters run at once, as with vLLM's --max-loras."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.errors import ConfigError
from extproc.lab.engine.engine import Engine
from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile

UNIT = EngineProfile(
    base_step_s=1.0, prefill_token_s=0.01, decode_sequence_s=0.1, kv_token_s=0.0, kv_cache_tokens=1024
)


def an_engine(places: int | None, **limits: int) -> Engine:
    return Engine(UNIT, EngineLimits(kv_cache_tokens=1024, adapter_places=places, **limits))


def submit(engine: Engine, *adapters: int, output_tokens: int = 3) -> None:
    for number, adapter in enumerate(adapters):
        engine.submit(str(number), 10, output_tokens, 0.0, adapter=adapter)


def step(engine: Engine) -> tuple[str, ...]:
    assert engine.begin_step(0.0) is not None
    return engine.end_step(1.0).finished


def test_a_request_waits_for_a_place_for_its_adapter_and_is_overtaken() -> None:
    engine = an_engine(2)
    submit(engine, 1, 2, 3, 1, 0)
    step(engine)
    assert (engine.running, engine.waiting, engine.counters.adapter_waits) == (4, 1, 1)
    assert engine.adapters == (frozenset({1, 2}), frozenset({3}))


def test_it_runs_as_soon_as_an_adapter_has_no_request_left_and_counts_once() -> None:
    engine = an_engine(1)
    submit(engine, 1, 2)
    order = [finished for _ in range(6) for finished in step(engine)]
    assert order == ["0", "1"]
    assert engine.counters.adapter_waits == 1
    assert engine.adapters == (frozenset(), frozenset())


def test_without_a_limit_all_run() -> None:
    engine = an_engine(None)
    submit(engine, 1, 2, 3, 4)
    step(engine)
    assert (engine.running, engine.counters.adapter_waits) == (4, 0)


def test_places_are_given_back_by_an_abort_and_by_a_copy_apart() -> None:
    engine = an_engine(1)
    submit(engine, 1, 2)
    step(engine)
    twin = engine.copied()
    engine.abort("0")
    step(engine)
    assert engine.adapters == (frozenset({2}), frozenset())
    assert twin.adapters == (frozenset({1}), frozenset({2}))


def test_a_place_is_at_least_one() -> None:
    with pytest.raises(ConfigError, match="adapter_places"):
        an_engine(0)


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30)), max_size=20),
    st.integers(0, 9),
)
def test_no_more_adapters_run_than_there_are_places_and_all_requests_end(
    places: int, requests: list[tuple[int, int]], aborted: int
) -> None:
    engine = an_engine(places, max_num_seqs=5, max_num_batched_tokens=16)
    for number, (adapter, tokens) in enumerate(requests):
        engine.submit(str(number), tokens, tokens, 0.0, adapter=adapter)
    engine.abort(str(aborted))
    for _ in range(2000):
        if engine.begin_step(0.0) is None:
            break
        assert len(engine.adapters[0]) <= places
        engine.end_step(0.0)
    assert (engine.running, engine.waiting) == (0, 0)
    assert engine.adapters == (frozenset(), frozenset())
