from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.adapters.vllm.exposition import read_signals
from extproc.fleet.adapter_places import AdaptersSeen

GAUGES = "vllm:num_requests_running 1\nvllm:num_requests_waiting 0\n"


def series(running: str = "", waiting: str = "", at: str = "1.0", places: str = "4") -> str:
    labels = f'max_lora="{places}",running_lora_adapters="{running}",waiting_lora_adapters="{waiting}"'
    return f"vllm:lora_requests_info{{{labels}}} {at}\n"


def seen(text: str) -> AdaptersSeen | None:
    signals = read_signals((GAUGES + text).encode())
    assert signals is not None
    return signals.adapters


def test_the_newest_series_counts_wherever_it_is() -> None:
    old, new = series("a,b", "c", at="1.7e9"), series("b", "d", at="1.7000001e9")
    for text in (old + new, new + old):
        assert seen(text) == AdaptersSeen(frozenset({"b"}), frozenset({"d"}), 4)


def test_without_adapters_nothing_is_reported() -> None:
    assert seen("") is None


def test_an_idle_server_names_none() -> None:
    assert seen(series()) == AdaptersSeen(frozenset(), places=4)


@pytest.mark.parametrize("places", ["0", "", "-1", "many", "9999999"])
def test_places_that_cannot_be_true_are_no_limit(places: str) -> None:
    assert seen(series("a", places=places)) == AdaptersSeen(frozenset({"a"}), places=inf)


def test_names_are_read_as_they_are_written() -> None:
    found = seen(series(r"team/sql, 模型,a\"b,} 7"))
    assert found is not None
    assert found.running == {"team/sql", "模型", 'a"b', "} 7"}


def test_a_name_that_is_too_long_is_left_out() -> None:
    assert seen(series(f"a,{'x' * 257}")) == AdaptersSeen(frozenset({"a"}), places=4)


def test_old_series_by_the_thousand_are_no_fault() -> None:
    text = "".join(series(f"a-{number}", at=str(number)) for number in range(3000))
    assert seen(text) == AdaptersSeen(frozenset({"a-2999"}), places=4)


@pytest.mark.parametrize("at", ["NaN", "x", ""])
def test_a_series_without_a_time_is_none(at: str) -> None:
    assert seen(series("a", at=at)) is None


@given(st.binary(max_size=100))
def test_no_labels_can_raise(noise: bytes) -> None:
    text = GAUGES.encode() + b'vllm:lora_requests_info{running_lora_adapters="' + noise + b'"} 1\n'
    signals = read_signals(text)
    assert signals is not None
