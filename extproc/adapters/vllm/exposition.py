"""A backend's `/metrics` text to `Signals`, in the dialect of its kind of server (`dialects`)."""

import urllib.request
from http.client import HTTPException

from extproc.adapters.vllm.dialects import DIALECTS, Dialect, KvCacheSize
from extproc.adapters.vllm.lora_info import read_adapters
from extproc.adapters.vllm.series import series
from extproc.errors import CalibrationError
from extproc.fleet.signals import Signals

MAX_GAUGE = 1e6
"""A server with more running or waiting requests than this is not believed."""

MAX_COUNTER = 1e15
"""Nor one that has counted more: a fleet of a thousand machines at full speed takes a year for it."""

_PATIENCE_S = 5.0  # guessed: a scrape takes milliseconds, under load tenths of a second
_MAX_BYTES = 8 << 20
_UNREADABLE = (OSError, HTTPException, ValueError)
# A proxy from the environment has no business between a command and a server that it names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def read_signals(text: bytes) -> Signals | None:
    """Read a scrape; None where the text is not a believable exposition of a known server.

    A gauge that is absent or odd costs nothing but itself, all but that of the running requests: without it
    nothing is known of the load. A queue that is not reported counts as none.
    """
    lines = b"\n" + text
    dialect = dialect_of(lines)
    if dialect is None:
        return None
    waiting = _sum(series(lines, dialect.waiting), MAX_GAUGE)
    cache = dialect.cache_info.read(lines) if dialect.cache_info else None
    return Signals(
        running=_sum(series(lines, dialect.running), MAX_GAUGE) or 0.0,
        waiting=0.0 if waiting is None else waiting,
        kv_cache_fraction=_fraction(series(lines, dialect.kv_cache)),
        prompt_tokens_total=_sum(series(lines, dialect.prompt_tokens), MAX_COUNTER),
        generation_tokens_total=_sum(series(lines, dialect.generation_tokens), MAX_COUNTER),
        prefix_hits_total=_sum(series(lines, dialect.prefix_hits), MAX_COUNTER),
        ended_total=_sum(series(lines, dialect.ended), MAX_COUNTER),
        kv_cache_tokens=float(cache.kv_cache_tokens) if cache else None,
        is_asleep=0.0 in series(lines, dialect.awake),
        adapters=None if dialect.adapters is None else read_adapters(lines, dialect.adapters),
    )


def dialect_of(lines: bytes) -> Dialect | None:
    """Return the first dialect in which a text, behind a line break, tells the running requests."""
    for dialect in DIALECTS:
        if _sum(series(lines, dialect.running), MAX_GAUGE) is not None:
            return dialect
    return None


def read_kv_cache_size(text: bytes) -> KvCacheSize | None:
    """Read the size of the KV cache alone; None where it is not reported, or there are several engines."""
    lines = b"\n" + text
    for info in [dialect.cache_info for dialect in DIALECTS]:
        if info is not None and info.count(lines) == 1:
            return info.read(lines)
    return None


def ask_kv_cache_size(url: str) -> KvCacheSize:
    """Ask a server for the size of its KV cache, blocking; raises CalibrationError where it does not say."""
    try:
        size = read_kv_cache_size(_scraped(url))
    except _UNREADABLE as error:
        raise CalibrationError(f"{url}/metrics cannot be read: {error}") from error
    if size is None:
        raise CalibrationError(
            f"{url} does not tell the size of one engine's KV cache: give --kv-cache-tokens"
        )
    return size


def ask_signals(url: str) -> Signals | None:
    """Ask a server for its signals, blocking; None where it does not tell them."""
    try:
        return read_signals(_scraped(url))
    except _UNREADABLE:
        return None


def _scraped(url: str) -> bytes:
    with _opener.open(f"{url.rstrip('/')}/metrics", timeout=_PATIENCE_S) as response:
        text: bytes = response.read(_MAX_BYTES)
        return text


def _sum(values: list[float], most: float) -> float | None:
    """Return the sum; None where there is none, or one that is not believed."""
    if not values or not all(value >= 0.0 for value in values):
        return None
    total = sum(values)
    return total if total <= most else None


def _fraction(values: list[float]) -> float | None:
    """Return the mean; None where one of them is no fraction, but for rounding."""
    if not values or not all(0.0 <= value <= 1.0 + 1e-6 for value in values):
        return None
    return min(1.0, sum(values) / len(values))
