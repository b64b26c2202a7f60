"""A backend's `/metrics` text to `Signals`, reading only the lines that matter.

vLLM prints about 48 KB, ten times a second per backend; parsing all of it is what makes other routers
spend cores on scraping. The bytes are searched for the few names instead. The format is Prometheus' text
exposition format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/).

Each kind of server has a dialect, which is all that differs between them; docs/extending.md adds one.
"""

import re
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

from extproc.errors import CalibrationError
from extproc.fleet.signals import Signals

MAX_GAUGE = 1e6
"""A server with more running or waiting requests than this is not believed."""

MAX_COUNTER = 1e15
"""Nor one that has counted more: a fleet of a thousand machines at full speed takes a year for it."""

MAX_CACHE_TOKENS = 1e9
"""Nor one with a larger KV cache: it is larger than any machine's memory."""

MAX_SERIES = 1024
"""Nor one with more engines than this, nor with more lines of names that only begin alike."""

_MAX_INFO_BYTES = 4096
_PATIENCE_S = 5.0  # guessed: a scrape takes milliseconds, under load tenths of a second
_MAX_BYTES = 8 << 20
# A proxy from the environment has no business between a command and a server that it names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class KvCacheSize:
    """The size of one engine's KV cache, and of its blocks, in tokens."""

    kv_cache_tokens: int
    block_size: int


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """The name of a series whose labels tell the size of the KV cache, and the names of these labels."""

    series: bytes
    blocks: bytes
    block_size: bytes

    def read(self, lines: bytes) -> KvCacheSize | None:
        """Read the size of the first engine's; None where it is absent, or not believable."""
        at = lines.find(b"\n%b{" % self.series)
        labels = lines[at + 1 : at + _MAX_INFO_BYTES].partition(b"\n")[0] if at >= 0 else b""
        found = [re.search(rb'[{,]%b="(\d{1,9})"' % name, labels) for name in (self.blocks, self.block_size)]
        blocks, block_size = (int(match[1]) if match else 0 for match in found)
        tokens = blocks * block_size
        return KvCacheSize(tokens, block_size) if 0 < tokens <= MAX_CACHE_TOKENS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The names under which one kind of server reports a signal; the first that is present counts."""

    running: tuple[bytes, ...]
    waiting: tuple[bytes, ...]
    kv_cache: tuple[bytes, ...]
    prompt_tokens: tuple[bytes, ...]
    generation_tokens: tuple[bytes, ...]
    prefix_hits: tuple[bytes, ...] = ()
    ended: tuple[bytes, ...] = ()
    cache_info: CacheInfo | None = None


VLLM = Dialect(
    running=(b"vllm:num_requests_running",),
    waiting=(b"vllm:num_requests_waiting",),
    kv_cache=(b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"),  # releases have one or the other
    prompt_tokens=(b"vllm:prompt_tokens_total",),
    generation_tokens=(b"vllm:generation_tokens_total",),
    prefix_hits=(b"vllm:prefix_cache_hits_total",),
    ended=(b"vllm:request_success_total",),
    cache_info=CacheInfo(b"vllm:cache_config_info", blocks=b"num_gpu_blocks", block_size=b"block_size"),
)
SGLANG = Dialect(
    running=(b"sglang:num_running_reqs",),
    waiting=(b"sglang:num_queue_reqs",),
    kv_cache=(b"sglang:token_usage",),
    prompt_tokens=(b"sglang:prompt_tokens_total",),
    generation_tokens=(b"sglang:generation_tokens_total",),
    cache_info=CacheInfo(b"sglang:cache_config_info", blocks=b"num_pages", block_size=b"page_size"),
)
DIALECTS = (VLLM, SGLANG)


def read_signals(text: bytes) -> Signals | None:
    """Read a scrape; None where the text is not a believable exposition of a known server.

    A gauge that is absent or odd costs nothing but itself, all but that of the running requests: without it
    nothing is known of the load. A queue that is not told counts as none.
    """
    lines = b"\n" + text
    for dialect in DIALECTS:
        running = _gauge(_series(lines, dialect.running))
        if running is None:
            continue
        waiting = _gauge(_series(lines, dialect.waiting))
        cache = dialect.cache_info.read(lines) if dialect.cache_info else None
        return Signals(
            running=running,
            waiting=0.0 if waiting is None else waiting,
            kv_cache_fraction=_fraction(_series(lines, dialect.kv_cache)),
            prompt_tokens_total=_counter(_series(lines, dialect.prompt_tokens)),
            generation_tokens_total=_counter(_series(lines, dialect.generation_tokens)),
            prefix_hits_total=_counter(_series(lines, dialect.prefix_hits)),
            ended_total=_counter(_series(lines, dialect.ended)),
            kv_cache_tokens=float(cache.kv_cache_tokens) if cache else None,
        )
    return None


def read_kv_cache_size(text: bytes) -> KvCacheSize | None:
    """Read the size of the KV cache alone; None where it is not told, or there are several engines."""
    lines = b"\n" + text
    for info in [dialect.cache_info for dialect in DIALECTS]:
        if info is not None and lines.count(b"\n%b{" % info.series) == 1:
            return info.read(lines)
    return None


def ask_kv_cache_size(url: str) -> KvCacheSize:
    """Ask a server for the size of its KV cache, blocking; raises CalibrationError where it does not say."""
    try:
        with _opener.open(f"{url.rstrip('/')}/metrics", timeout=_PATIENCE_S) as response:
            text: bytes = response.read(_MAX_BYTES)
    except (OSError, HTTPException, ValueError) as error:
        raise CalibrationError(f"{url}/metrics cannot be read: {error}") from error
    size = read_kv_cache_size(text)
    if size is None:
        raise CalibrationError(
            f"{url} does not tell the size of one engine's KV cache: give --kv-cache-tokens"
        )
    return size


def _gauge(values: list[float]) -> float | None:
    if not values or not all(0.0 <= value <= MAX_GAUGE for value in values):
        return None
    total = sum(values)
    return total if total <= MAX_GAUGE else None


def _fraction(values: list[float]) -> float | None:
    """The mean; None where one of them is no fraction, but for rounding."""
    if not values or not all(0.0 <= value <= 1.0 + 1e-6 for value in values):
        return None
    return min(1.0, sum(values) / len(values))


def _counter(values: list[float]) -> float | None:
    if not values or not all(value >= 0.0 for value in values):
        return None
    total = sum(values)
    return total if total <= MAX_COUNTER else None


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
