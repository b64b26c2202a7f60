"""A backend's `/metrics` text to `Signals`, reading only the lines that matter.

vLLM prints about 48 KB, ten times a second per backend; parsing all of it is what makes other routers
spend cores on scraping. The bytes are searched for the few names instead. The format is Prometheus' text
exposition format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/).
"""

import re
from dataclasses import dataclass
from math import isfinite

from extproc.fleet.signals import Signals

MAX_GAUGE = 1e6
"""A server with more running or waiting requests than this is not believed."""

MAX_SERIES = 1024
"""Nor one with more engines than this, nor with more lines of names that only begin alike."""


_MAX_INFO_BYTES = 4096
_BLOCKS = re.compile(rb'[{,]num_gpu_blocks="(\d{1,9})"')
_BLOCK_SIZE = re.compile(rb'[{,]block_size="(\d{1,9})"')


@dataclass(frozen=True, slots=True)
class Dialect:
    """The names under which one kind of server reports a signal; the first that is present counts."""

    running: tuple[bytes, ...]
    waiting: tuple[bytes, ...]
    kv_cache: tuple[bytes, ...]
    prompt_tokens: tuple[bytes, ...]
    generation_tokens: tuple[bytes, ...]
    prefix_hits: tuple[bytes, ...] = ()
    ended: tuple[bytes, ...] = ()
    cache_info: bytes | None = None


VLLM = Dialect(
    running=(b"vllm:num_requests_running",),
    waiting=(b"vllm:num_requests_waiting",),
    kv_cache=(b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"),  # releases have one or the other
    prompt_tokens=(b"vllm:prompt_tokens_total",),
    generation_tokens=(b"vllm:generation_tokens_total",),
    prefix_hits=(b"vllm:prefix_cache_hits_total",),
    ended=(b"vllm:request_success_total",),
    cache_info=b"\nvllm:cache_config_info{",
)
SGLANG = Dialect(
    running=(b"sglang:num_running_reqs",),
    waiting=(b"sglang:num_queue_reqs",),
    kv_cache=(b"sglang:token_usage",),
    prompt_tokens=(b"sglang:prompt_tokens_total",),
    generation_tokens=(b"sglang:generation_tokens_total",),
)


def read_signals(text: bytes) -> Signals | None:
    """None where the text is not a believable exposition of a known server."""
    lines = b"\n" + text
    for dialect in (VLLM, SGLANG):
        running = _gauge(_series(lines, dialect.running))
        if running is None:
            continue
        waiting = _gauge(_series(lines, dialect.waiting))
        kv_caches = _series(lines, dialect.kv_cache)
        if waiting is None or not all(0.0 <= value <= 1.0 + 1e-6 for value in kv_caches):
            return None
        return Signals(
            running=running,
            waiting=waiting,
            kv_cache_fraction=min(1.0, sum(kv_caches) / len(kv_caches)) if kv_caches else None,
            prompt_tokens_total=_counter(_series(lines, dialect.prompt_tokens)),
            generation_tokens_total=_counter(_series(lines, dialect.generation_tokens)),
            prefix_hits_total=_counter(_series(lines, dialect.prefix_hits)),
            ended_total=_counter(_series(lines, dialect.ended)),
            kv_cache_tokens=_kv_cache_tokens(lines, dialect.cache_info),
        )
    return None


def _gauge(values: list[float]) -> float | None:
    if not values or not all(0.0 <= value <= MAX_GAUGE for value in values):
        return None
    return sum(values)


def _counter(values: list[float]) -> float | None:
    if not values or not all(value >= 0.0 for value in values):
        return None
    total = sum(values)
    return total if isfinite(total) else None


def _kv_cache_tokens(lines: bytes, cache_info: bytes | None) -> float | None:
    """The size of the first engine's KV cache; None where it is not told, or not believable."""
    at = -1 if cache_info is None else lines.find(cache_info)
    if at < 0:
        return None
    labels = lines[at + 1 : at + _MAX_INFO_BYTES].partition(b"\n")[0]
    blocks, block_size = _BLOCKS.search(labels), _BLOCK_SIZE.search(labels)
    tokens = int(blocks[1]) * int(block_size[1]) if blocks and block_size else 0
    return float(tokens) if tokens else None


def _series(lines: bytes, names: tuple[bytes, ...]) -> list[float]:
    """The values of all series of the first name that has any; NaN stands for a value that is no number."""
    for name in names:
        values = []
        looks = 0
        needle = b"\n" + name
        at = lines.find(needle)
        while at >= 0 and looks <= MAX_SERIES:
            looks += 1
            rest = at + len(needle)
            end = lines.find(b"\n", rest)
            if lines[rest : rest + 1] in {b"{", b" "}:
                values.append(_value(lines[rest : end if end >= 0 else len(lines)]))
            at = lines.find(needle, rest)
        if looks > MAX_SERIES:
            return [float("nan")]
        if values:
            return values
    return []


def _value(line: bytes) -> float:
    """The number behind the labels, a timestamp behind it ignored."""
    fields = line[line.rfind(b"}") + 1 :].split(None, 2)
    try:
        return float(fields[0])
    except (IndexError, ValueError):
        return float("nan")
