"""The names under which each kind of server reports what a router has to know, which is all that differs.

docs/extending.md adds one; docs/compatibility.md says where each name comes from.
"""

import re
from dataclasses import dataclass

from extproc.adapters.vllm.series import series

MAX_CACHE_TOKENS = 1e9
"""A server with a larger KV cache than this is not believed: it is larger than any machine's memory."""

_MAX_INFO_BYTES = 4096


@dataclass(frozen=True, slots=True)
class KvCacheSize:
    """The size of one engine's KV cache, and of its blocks, in tokens."""

    kv_cache_tokens: int
    block_size: int


def _size(blocks: float, block_size: float) -> KvCacheSize | None:
    tokens = blocks * block_size
    return KvCacheSize(int(tokens), int(block_size)) if 0 < tokens <= MAX_CACHE_TOKENS else None


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """The name of a series whose labels tell the size of the KV cache, and the names of these labels."""

    series: bytes
    blocks: bytes
    block_size: bytes

    @property
    def names(self) -> tuple[bytes, ...]:
        """The names of all series that are read."""
        return (self.series,)

    def count(self, lines: bytes) -> int:
        """Return how many engines tell their size."""
        return lines.count(b"\n%b{" % self.series)

    def read(self, lines: bytes) -> KvCacheSize | None:
        """Read the size of the first engine's; None where it is absent, or not believable."""
        at = lines.find(b"\n%b{" % self.series)
        labels = lines[at + 1 : at + _MAX_INFO_BYTES].partition(b"\n")[0] if at >= 0 else b""
        found = [re.search(rb'[{,]%b="(\d{1,9})"' % name, labels) for name in (self.blocks, self.block_size)]
        blocks, block_size = (int(match[1]) if match else 0 for match in found)
        return _size(blocks, block_size)


@dataclass(frozen=True, slots=True)
class CacheGauges:
    """The names of two gauges that tell the size of the KV cache."""

    blocks: bytes
    block_size: bytes

    @property
    def names(self) -> tuple[bytes, ...]:
        """The names of all series that are read, as `Dialect` has them."""
        return self.blocks, self.block_size

    def count(self, lines: bytes) -> int:
        """Return how many engines tell their size."""
        return len(series(lines, (self.blocks,)))

    def read(self, lines: bytes) -> KvCacheSize | None:
        """Read the size of the first engine's; None where it is absent, or not believable."""
        blocks, block_size = (series(lines, (name,)) for name in (self.blocks, self.block_size))
        return _size(blocks[0], block_size[0]) if blocks and block_size else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The names under which one kind of server reports a signal; the first that is present counts.

    A name may have one label, such as `requests{state="waiting"}`. `awake` is 0 for an engine that sleeps.
    `adapters` has labels as vLLM's gauge has (`lora_info`).
    """

    running: tuple[bytes, ...]
    waiting: tuple[bytes, ...]
    kv_cache: tuple[bytes, ...] = ()
    prompt_tokens: tuple[bytes, ...] = ()
    generation_tokens: tuple[bytes, ...] = ()
    prefix_hits: tuple[bytes, ...] = ()
    ended: tuple[bytes, ...] = ()
    awake: tuple[bytes, ...] = ()
    adapters: bytes | None = None
    cache_info: CacheInfo | CacheGauges | None = None

    @property
    def names(self) -> list[bytes]:
        """The names of all series that are read, without labels."""
        several = [self.running, self.waiting, self.kv_cache, self.prompt_tokens, self.generation_tokens]
        several += [self.prefix_hits, self.ended, self.awake]
        several += [] if self.adapters is None else [(self.adapters,)]
        several += [] if self.cache_info is None else [self.cache_info.names]
        return [name.partition(b"{")[0] for names in several for name in names]


VLLM = Dialect(
    running=(b"vllm:num_requests_running",),
    waiting=(b"vllm:num_requests_waiting",),
    kv_cache=(b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"),  # releases have one or the other
    prompt_tokens=(b"vllm:prompt_tokens_total",),
    generation_tokens=(b"vllm:generation_tokens_total",),
    prefix_hits=(b"vllm:prefix_cache_hits_total",),
    ended=(b"vllm:request_success_total",),
    awake=(b'vllm:engine_sleep_state{sleep_state="awake"}',),
    adapters=b"vllm:lora_requests_info",
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
TENSORRT_LLM = Dialect(
    running=(b"trtllm_num_requests_running",),
    waiting=(b"trtllm_num_requests_waiting",),
    kv_cache=(b"trtllm_kv_cache_utilization",),
    # Its counters of tokens move when a request has ended: no measure of what is computed by now.
    ended=(b"trtllm_num_requests_completed_total", b"trtllm_request_success_total"),
    cache_info=CacheGauges(b"trtllm_kv_cache_max_blocks", b"trtllm_kv_cache_tokens_per_block"),
)
TRITON = Dialect(
    running=(b'nv_trt_llm_request_metrics{request_type="scheduled"}',),
    waiting=(b'nv_trt_llm_request_metrics{request_type="waiting"}',),
    kv_cache=(b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"}',),
    ended=(b"nv_inference_request_success",),
    cache_info=CacheGauges(
        b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max"}',
        b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per"}',
    ),
)
TGI = Dialect(
    running=(b"tgi_batch_current_size",),
    waiting=(b"tgi_queue_size",),
    ended=(b"tgi_request_success",),
)
DIALECTS = (VLLM, SGLANG, TENSORRT_LLM, TRITON, TGI)
