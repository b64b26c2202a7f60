"""A generated `/metrics` text in vLLM's format: its families, labels, order and size, with made-up values.

Families, labels and bucket bounds are those that a vLLM 0.32.0 prints. The help texts are filler of the usual
length: a reader has to get past them, whatever they say.
"""

from collections.abc import Iterator, Sequence

_CREATED_S = 1.7953700272197642e9
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
_STEPS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
_TPOT_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_LATENCY_S = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_HTTP_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60)
_REASONS = ("stop", "length", "abort", "error", "repetition")
_SOURCES = ("device", "cpu", "disk", "remote", "peer")

_PROCESS = (
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
)
_COUNTERS_BEFORE_GAUGES = (
    "estimated_flops_per_gpu",
    "estimated_read_bytes_per_gpu",
    "estimated_write_bytes_per_gpu",
)
_COUNTERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("prefix_cache_queries", "", ()),
    ("prefix_cache_hits", "", ()),
    ("external_prefix_cache_queries", "", ()),
    ("external_prefix_cache_hits", "", ()),
    ("mm_cache_queries", "", ()),
    ("mm_cache_hits", "", ()),
    ("num_preemptions", "", ()),
    ("prompt_tokens", "", ()),
    ("prompt_tokens_by_source", "source", ("local_compute", "local_cache_hit", "external_kv_transfer")),
    ("prompt_tokens_cached", "", ()),
    ("prompt_tokens_cached_by_source", "source", _SOURCES),
    ("generation_tokens", "", ()),
    ("request_success", "finished_reason", _REASONS),
    ("admission_rejections", "reason", ("num_queued_reqs", "num_queued_tokens")),
)
_HISTOGRAMS: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("request_prompt_tokens", _TOKENS),
    ("request_generation_tokens", _TOKENS),
    ("iteration_tokens_total", _STEPS),
    ("request_max_num_generation_tokens", _TOKENS),
    ("request_params_n", (1, 2, 5, 10, 20)),
    ("request_params_max_tokens", _TOKENS),
    ("time_to_first_token_seconds", _TTFT_S),
    ("inter_token_latency_seconds", _TPOT_S),
    ("request_time_per_output_token_seconds", _TPOT_S),
    ("e2e_request_latency_seconds", _LATENCY_S),
    ("request_queue_time_seconds", _LATENCY_S),
    ("request_inference_time_seconds", _LATENCY_S),
    ("request_prefill_time_seconds", _LATENCY_S),
    ("request_decode_time_seconds", _LATENCY_S),
    ("request_num_preemptions", (1, 2, 3, 4, 5, 10, 20)),
    ("request_prefill_kv_computed_tokens", _TOKENS),
)
_CACHE_SETTINGS = 34  # as many labels as vLLM's cache configuration has


def vllm_exposition(
    model: str, running: int = 0, waiting: int = 0, kv_cache_fraction: float = 0.0, served: int = 0
) -> bytes:
    """The whole text, about 48 KB, of a server that has `served` so many requests more."""
    labels = f'engine="0",model_name="{model}"'
    lines: list[str] = []
    for name in _PROCESS:
        lines += _family(name, "gauge", [(name, "", 1.857609728e9)])
    for name in _COUNTERS_BEFORE_GAUGES:
        lines += _counter(name, labels, "", ())
    lines += _gauge("num_requests_running", [(labels, running)])
    lines += _gauge("num_requests_waiting", [(labels, waiting)])
    by_reason = [(f'{labels},reason="capacity"', waiting), (f'{labels},reason="deferred"', 0)]
    lines += _gauge("num_requests_waiting_by_reason", by_reason)
    states = ("awake", "weights_offloaded", "discard_all")
    lines += _gauge("engine_sleep_state", [(f'{labels},sleep_state="{s}"', s == "awake") for s in states])
    lines += _gauge("kv_cache_usage_perc", [(labels, kv_cache_fraction)])
    for name, label, values in _COUNTERS:
        lines += _counter(name, labels, label, values, served)
    for name, bounds in _HISTOGRAMS:
        lines += _histogram(f"vllm:{name}", labels, bounds, served)
    settings = ",".join(f'cache_setting_number_{i:02d}="None"' for i in range(_CACHE_SETTINGS))
    lines += _gauge(
        "cache_config_info", [(f'block_size="32",engine="0",num_gpu_blocks="1024",{settings}', 1)]
    )
    lines += _histogram("http_request_duration_highr_seconds", "", _HTTP_S)
    return ("\n".join(lines) + "\n").encode()


def short_exposition(model: str) -> bytes:
    """Only what a router reads, under 1 KB: an idle server's gauges and token counters."""
    labels = f'engine="0",model_name="{model}"'
    lines: list[str] = []
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        lines += _gauge(name, [(labels, 0.0)])
    for name in ("prompt_tokens", "generation_tokens"):
        lines += _family(f"vllm:{name}_total", "counter", [(f"vllm:{name}_total", labels, 512.0)])
    return ("\n".join(lines) + "\n").encode()


def _family(name: str, kind: str, series: list[tuple[str, str, float]]) -> Iterator[str]:
    yield f"# HELP {name} What {name} counts or measures, in words that a person reads once."
    yield f"# TYPE {name} {kind}"
    for series_name, labels, value in series:
        yield f"{series_name}{{{labels}}} {float(value)}" if labels else f"{series_name} {float(value)}"


def _gauge(name: str, series: Sequence[tuple[str, float]]) -> Iterator[str]:
    return _family(f"vllm:{name}", "gauge", [(f"vllm:{name}", labels, value) for labels, value in series])


def _counter(name: str, labels: str, label: str, values: tuple[str, ...], served: int = 0) -> Iterator[str]:
    label_sets = [f'{labels},{label}="{value}"' for value in values] or [labels]
    for suffix, kind, value in (("total", "counter", 512.0 + served), ("created", "gauge", _CREATED_S)):
        full_name = f"vllm:{name}_{suffix}"
        yield from _family(full_name, kind, [(full_name, label_set, value) for label_set in label_sets])


def _histogram(name: str, labels: str, bounds: tuple[float, ...], served: int = 0) -> Iterator[str]:
    engine, _, model = labels.partition(",")
    series: list[tuple[str, str, float]] = []
    for count, bound in enumerate((*map(float, bounds), "+Inf")):
        label_set = ",".join(filter(None, (engine, f'le="{bound}"', model)))
        series.append((f"{name}_bucket", label_set, count + served))
    series += [(f"{name}_count", labels, len(bounds) + served), (f"{name}_sum", labels, 93.24117517471313)]
    yield from _family(name, "histogram", series)
    yield from _family(f"{name}_created", "gauge", [(f"{name}_created", labels, _CREATED_S)])
