from hypothesis import given
from hypothesis import strategies as st

from extproc.lab.engine.engine import Engine
from extproc.lab.engine.engine_profile import PROFILES, EngineLimits
from extproc.lab.simulated_vllm.vllm_metrics import LateGauges


def engine() -> Engine:
    return Engine(PROFILES["a100-8b"], EngineLimits(kv_cache_tokens=100_000))


def submit(server: Engine, gauges: LateGauges, name: str, now_s: float) -> None:
    server.submit(name, 10, 10, now_s)
    gauges.changed(now_s)


def test_a_change_is_seen_after_the_delay_and_not_before():
    server = engine()
    gauges = LateGauges(server, 0.3)
    submit(server, gauges, "a", 1.0)
    assert gauges.seen(1.29).waiting == 0
    assert gauges.seen(1.31).waiting == 1


def test_without_a_delay_changes_are_seen_at_once():
    server = engine()
    gauges = LateGauges(server, 0.0)
    submit(server, gauges, "a", 1.0)
    assert gauges.seen(1.0).waiting == 1


def test_late_counters_do_not_move_with_the_engines():
    server = engine()
    gauges = LateGauges(server, 10.0)
    server.submit("a", 10, 1, 0.0)
    server.begin_step(0.0)
    server.end_step(1.0)
    gauges.changed(1.0)
    early, late = gauges.seen(10.9).counters, gauges.seen(11.1).counters
    assert (early.prompt_tokens, sum(early.finished.values())) == (0, 0)
    assert (late.prompt_tokens, sum(late.finished.values())) == (10, 1)


@given(
    pauses_s=st.lists(st.floats(0.01, 1.0), max_size=30),
    delay_s=st.floats(0.0, 2.0),
    look_s=st.floats(0.0, 40.0),
)
def test_what_is_seen_is_what_was_at_that_moment(pauses_s, delay_s, look_s):
    server = engine()
    gauges = LateGauges(server, delay_s)
    now_s, changes_s = 0.0, []
    for number, pause_s in enumerate(pauses_s):
        now_s += pause_s
        changes_s.append(now_s)
        submit(server, gauges, str(number), now_s)
    look_s = max(look_s, now_s)
    assert gauges.seen(look_s).waiting == sum(at_s <= look_s - delay_s for at_s in changes_s)
