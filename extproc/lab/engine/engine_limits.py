"""What bounds a simulated engine: batch size, tokens per iteration, KV memory, the HTTP layer before it."""

from dataclasses import dataclass

from extproc.errors import ConfigError

DEFAULT_BLOCK_SIZE = 16
"""Borrowed: vLLM's default on GPUs, in tokens."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The limits of one engine, named as vLLM's options are.

    With an `http_limit`, at most that many requests are inside the engine, running or waiting; the others are
    stuck before it, first come first served, where no gauge of the engine counts them. This is how real
    deployments show a TTFT of 20 s while `num_requests_waiting` reads 0.
    """

    kv_cache_tokens: int
    max_num_seqs: int = 256  # borrowed: vLLM's default
    max_num_batched_tokens: int = 2048  # borrowed: vLLM's default for an API server
    block_size: int = DEFAULT_BLOCK_SIZE
    http_limit: int | None = None

    def __post_init__(self) -> None:
        sizes = {
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "block_size": self.block_size,
            "http_limit": 1 if self.http_limit is None else self.http_limit,
        }
        faults = [f"{name} must be at least 1, not {size}" for name, size in sizes.items() if size < 1]
        if self.max_num_batched_tokens < self.max_num_seqs:  # vLLM refuses it as well
            faults.append(
                f"max_num_batched_tokens must be at least max_num_seqs, not {self.max_num_batched_tokens}"
            )
        if self.kv_cache_tokens < self.block_size:
            faults.append(f"kv_cache_tokens must be at least block_size, not {self.kv_cache_tokens}")
        if faults:
            raise ConfigError("; ".join(faults))

    @property
    def kv_cache_blocks(self) -> int:
        """How many whole blocks the KV cache has."""
        return self.kv_cache_tokens // self.block_size

    def blocks_for(self, tokens: int) -> int:
        """How many blocks hold this many tokens."""
        return -(-tokens // self.block_size)
