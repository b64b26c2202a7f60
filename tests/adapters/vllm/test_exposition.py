import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.adapters.vllm.dialects import KvCacheSize
from extproc.adapters.vllm.exposition import (
    ask_kv_cache_size,
    read_kv_cache_size,
    read_signals,
)
from extproc.errors import CalibrationError
from extproc.fleet.signals import Signals

LABELS = '{engine="0",model_name="m"}'
INFO = (
    'vllm:cache_config_info{_block_size_resolved="True",block_size="32",cache_dtype="auto",engine="%d",'
    'kv_cache_memory_bytes="134217728",kv_cache_size_tokens="32768",num_cpu_blocks="None",'
    'num_gpu_blocks="1024",num_gpu_blocks_override="1024"} 1.0\n'
)
TEXT = "# TYPE vllm:cache_config_info gauge\n" + INFO % 0 + "vllm:num_requests_running 0.0\n"


def exposition(
    running: str = "4.0", waiting: str = "2.0", kv: str = "0.25", kv_name: str = "vllm:kv_cache_usage_perc"
) -> bytes:
    return (
        "# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
        "# TYPE vllm:num_requests_running gauge\n"
        f"vllm:num_requests_running{LABELS} {running}\n"
        f"vllm:num_requests_waiting{LABELS} {waiting}\n"
        f'vllm:num_requests_waiting_by_reason{{engine="0",reason="capacity"}} 99.0\n'
        f"{kv_name}{LABELS} {kv}\n"
        f"vllm:prompt_tokens_total{LABELS} 512.0\n"
        f"vllm:generation_tokens_total{LABELS} 1.024e+03\n"
    ).encode()


def test_the_few_lines_that_matter_are_read() -> None:
    assert read_signals(exposition()) == Signals(4.0, 2.0, 0.25, 512.0, 1024.0)


def test_the_older_name_of_the_kv_gauge_is_read() -> None:
    signals = read_signals(exposition(kv_name="vllm:gpu_cache_usage_perc"))
    assert signals is not None
    assert signals.kv_cache_fraction == 0.25


def test_series_of_several_engines_are_summed_and_their_cache_usage_averaged() -> None:
    other = exposition(running="3", waiting="1", kv="0.75").replace(b'engine="0"', b'engine="1"')
    assert read_signals(exposition() + other) == Signals(7.0, 3.0, 0.5, 1024.0, 2048.0)


def test_the_size_of_the_kv_cache_is_that_of_the_first_engine() -> None:
    signals = read_signals(exposition() + (INFO % 0 + INFO.replace("1024", "2048") % 1).encode())
    assert signals is not None
    assert signals.kv_cache_tokens == 32_768


def test_a_label_value_with_braces_does_not_hide_the_number() -> None:
    text = exposition().replace(b'model_name="m"', b'model_name="a } 7 { b"')
    signals = read_signals(text)
    assert signals is not None
    assert signals.running == 4.0


def test_a_timestamp_behind_the_value_is_ignored() -> None:
    text = exposition().replace(b" 4.0\n", b" 4.0 1795370007000\n")
    signals = read_signals(text)
    assert signals is not None
    assert signals.running == 4.0


def test_windows_line_ends_and_a_missing_last_newline_are_read() -> None:
    text = exposition().replace(b"\n", b"\r\n").rstrip()
    assert read_signals(text) == Signals(4.0, 2.0, 0.25, 512.0, 1024.0)


@pytest.mark.parametrize("value", ["NaN", "-1", "+Inf", "1e300", "", "four", "0x4"])
def test_without_the_number_of_running_requests_a_scrape_is_invalid(value: str) -> None:
    assert read_signals(exposition(running=value)) is None


@pytest.mark.parametrize("value", ["NaN", "-1", "+Inf", "1e300", "", "four", "0x4"])
def test_a_queue_that_cannot_be_true_costs_the_queue_alone(value: str) -> None:
    assert read_signals(exposition(waiting=value)) == Signals(4.0, 0.0, 0.25, 512.0, 1024.0)


@pytest.mark.parametrize("value", ["NaN", "-0.39", "1.5", "25", "Inf", "x"])
def test_a_cache_usage_that_is_no_fraction_costs_the_cache_usage_alone(value: str) -> None:
    assert read_signals(exposition(kv=value)) == Signals(4.0, 2.0, None, 512.0, 1024.0)


@pytest.mark.parametrize(
    "text", [b"", b"<html>not found</html>", b"vllm:num_requests_running", b"\x00\xff" * 99]
)
def test_what_is_no_exposition_is_refused(text: bytes) -> None:
    assert read_signals(text) is None


def test_more_series_than_any_server_has_engines_are_refused() -> None:
    assert read_signals(exposition() * 2000) is None


def test_names_that_only_begin_like_a_signal_are_not_searched_for_ever() -> None:
    look_alikes = b"vllm:num_requests_running_total 1\n" * 5
    assert read_signals(look_alikes + exposition()) is not None
    assert read_signals(look_alikes * 1000 + exposition()) is None


def test_counters_whose_sum_is_no_number_are_not_believed() -> None:
    text = exposition() + b"vllm:prompt_tokens_total 1e308\n" * 2
    signals = read_signals(text)
    assert signals is not None
    assert signals.prompt_tokens_total is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(noise: bytes) -> None:
    signals = read_signals(noise + b"\n" + exposition() + noise)
    assert signals is None or signals.running >= 0.0


@contextmanager
def answering(text: str) -> Iterator[str]:
    """A server with these metrics; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_labels_of_a_server_are_read() -> None:
    assert read_kv_cache_size(TEXT.encode()) == KvCacheSize(32_768, 32)


@pytest.mark.parametrize(
    "text",
    ["", "vllm:num_requests_running 0.0\n", TEXT + INFO % 1, TEXT.replace('num_gpu_blocks="1024"', "")],
    ids=["nothing", "other metrics", "two engines", "no blocks"],
)
def test_what_does_not_say_it_is_no_guess(text: str) -> None:
    assert read_kv_cache_size(text.encode()) is None


def test_a_server_is_asked() -> None:
    with answering(TEXT) as url:
        assert ask_kv_cache_size(url) == ask_kv_cache_size(f"{url}/") == KvCacheSize(32_768, 32)


def test_a_server_that_does_not_say_or_is_not_there_is_an_error() -> None:
    with answering("") as url, pytest.raises(CalibrationError, match="--kv-cache-tokens"):
        ask_kv_cache_size(url)
    with pytest.raises(CalibrationError, match="cannot be read"):
        ask_kv_cache_size(url)


def test_gauges_that_are_too_much_together_are_not_believed() -> None:
    assert read_signals(exposition() + b"vllm:num_requests_running 900000\n" * 2) is None


def test_a_counter_beyond_reason_is_none() -> None:
    signals = read_signals(exposition() + b"vllm:generation_tokens_total 1e300\n")
    assert signals is not None
    assert signals.generation_tokens_total is None


def test_a_cache_that_no_machine_has_is_none() -> None:
    info = b'vllm:cache_config_info{block_size="999999999",num_gpu_blocks="999999999"} 1.0\n'
    signals = read_signals(b"vllm:num_requests_running 5\nvllm:num_requests_waiting 6\n" + info)
    assert signals is not None
    assert signals.kv_cache_tokens is None


def sleep_states(awake: str, offloaded: str, engine: int = 0) -> bytes:
    states = {"awake": awake, "weights_offloaded": offloaded, "discard_all": "0.0"}
    return "".join(
        f'vllm:engine_sleep_state{{engine="{engine}",model_name="m",sleep_state="{state}"}} {value}\n'
        for state, value in states.items()
    ).encode()


@pytest.mark.parametrize(
    ("states", "is_asleep"),
    [
        (b"", False),
        (sleep_states("1.0", "0.0"), False),
        (sleep_states("0.0", "1.0"), True),
        (sleep_states("1.0", "0.0") + sleep_states("0.0", "1.0", engine=1), True),
        (sleep_states("NaN", "x"), False),
    ],
    ids=["never told", "awake", "asleep", "one of two engines", "odd"],
)
def test_a_server_sleeps_where_one_of_its_engines_is_not_awake(states: bytes, is_asleep: bool) -> None:
    signals = read_signals(exposition() + states)
    assert signals is not None
    assert signals.is_asleep is is_asleep
