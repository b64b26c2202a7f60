"""Pages as each kind of server prints them, cut down to what is read.

docs/compatibility.md says where the names were seen.
"""

import pytest

from extproc.adapters.vllm.dialects import KvCacheSize
from extproc.adapters.vllm.exposition import read_kv_cache_size, read_signals
from extproc.fleet.signals import Signals

SGLANG = """\
sglang:num_running_reqs{model_name="m"} 5.0
sglang:num_queue_reqs{model_name="m"} 6.0
sglang:token_usage{model_name="m"} 0.28
sglang:prompt_tokens_total{model_name="m"} 8e+03
sglang:generation_tokens_total{model_name="m"} 7e+03
sglang:cache_config_info{model_name="m",num_pages="500",page_size="64"} 1.0
"""
TENSORRT_LLM = """\
trtllm_num_requests_running{engine_type="trtllm",model_name="m"} 4.0
trtllm_num_requests_waiting{engine_type="trtllm",model_name="m"} 3.0
trtllm_kv_cache_utilization{engine_type="trtllm",model_name="m"} 0.62
trtllm_num_requests_completed_total{engine_type="trtllm",model_name="m"} 90.0
trtllm_prompt_tokens_total{engine_type="trtllm",model_name="m"} 9000.0
trtllm_kv_cache_max_blocks{engine_type="trtllm",model_name="m"} 2000.0
trtllm_kv_cache_tokens_per_block{engine_type="trtllm",model_name="m"} 32.0
"""
TRITON = """\
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 4
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 7
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.6
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 300
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 500
nv_inference_request_success{model="tensorrt_llm",version="1"} 40
"""
TGI = """\
tgi_batch_current_size 8
tgi_batch_current_max_tokens 2048
tgi_queue_size 3
tgi_request_success 70
"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("page", "expected", "size"),
    [
        (SGLANG, Signals(5.0, 6.0, 0.28, 8000.0, 7000.0, kv_cache_tokens=32_000), KvCacheSize(32_000, 64)),
        (
            TENSORRT_LLM,
            Signals(4.0, 3.0, 0.62, ended_total=90.0, kv_cache_tokens=64_000),
            KvCacheSize(64_000, 32),
        ),
        (TRITON, Signals(4.0, 3.0, 0.6, ended_total=40.0, kv_cache_tokens=32_000), KvCacheSize(32_000, 64)),
        (TGI, Signals(8.0, 3.0, ended_total=70.0), None),
    ],
    ids=["sglang", "tensorrt-llm", "triton", "tgi"],
)
def test_each_kind_of_server_is_read_by_its_own_names(
    page: str, expected: Signals, size: KvCacheSize | None, line_end: str
) -> None:
    text = page.replace("\n", line_end).encode()
    assert read_signals(text) == expected
    assert read_kv_cache_size(text) == size


@pytest.mark.parametrize("position", ["first", "last"])
def test_a_label_chooses_the_series_wherever_it_is_among_the_labels(position: str) -> None:
    page = TRITON
    if position == "first":
        page = page.replace('{model="tensorrt_llm",request_type=', "{request_type=")
    else:
        page = page.replace(',version="1"', "")
    signals = read_signals(page.encode())
    assert signals is not None
    assert (signals.running, signals.waiting) == (4.0, 3.0)


def test_a_label_that_only_ends_alike_is_another_label() -> None:
    odd = 'nv_trt_llm_request_metrics{no_request_type="scheduled"} 99\n'
    signals = read_signals((odd + TRITON).encode())
    assert signals is not None
    assert signals.running == 4.0


def test_the_models_of_one_server_are_added_up() -> None:
    signals = read_signals((TRITON + TRITON.replace("tensorrt_llm", "another")).encode())
    assert signals is not None
    assert (signals.running, signals.waiting, signals.kv_cache_fraction) == (8.0, 6.0, 0.6)


def test_an_odd_size_of_the_cache_costs_nothing_else() -> None:
    for odd in ("NaN", "-1", "1e300"):
        page = TENSORRT_LLM.replace('blocks{engine_type="trtllm",model_name="m"} 2000.0', f"blocks{{}} {odd}")
        signals = read_signals(page.encode())
        assert signals is not None
        assert (signals.running, signals.kv_cache_tokens) == (4.0, None)
