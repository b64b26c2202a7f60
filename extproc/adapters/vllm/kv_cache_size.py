"""How large a vLLM server's KV cache is: the labels of `vllm:cache_config_info` in its `/metrics`."""

import re
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

from extproc.errors import CalibrationError

_PATIENCE_S = 5.0  # guessed: a scrape takes milliseconds, under load tenths of a second
_MAX_BYTES = 8 << 20
_INFO = re.compile(r"^vllm:cache_config_info\{(.*)\} ", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="(\d+)"')
# A proxy from the environment has no business between a command and a server that it names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class KvCacheSize:
    """In tokens."""

    kv_cache_tokens: int
    block_size: int


def ask_kv_cache_size(url: str) -> KvCacheSize:
    """Ask the server, blocking; raises CalibrationError where it does not say."""
    try:
        with _opener.open(f"{url.rstrip('/')}/metrics", timeout=_PATIENCE_S) as response:
            text: str = response.read(_MAX_BYTES).decode("utf-8", "replace")
    except (OSError, HTTPException, ValueError) as error:
        raise CalibrationError(f"{url}/metrics cannot be read: {error}") from error
    size = read_kv_cache_size(text)
    if size is None:
        raise CalibrationError(
            f"{url} does not tell the size of one engine's KV cache: give --kv-cache-tokens"
        )
    return size


def read_kv_cache_size(text: str) -> KvCacheSize | None:
    """What the exposition says; None where it says nothing, or is of several engines."""
    infos = _INFO.findall(text)
    labels = {name: int(number) for name, number in _LABEL.findall(infos[0])} if len(infos) == 1 else {}
    blocks, block_size = labels.get("num_gpu_blocks", 0), labels.get("block_size", 0)
    return KvCacheSize(blocks * block_size, block_size) if blocks and block_size else None
