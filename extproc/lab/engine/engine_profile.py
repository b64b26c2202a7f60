"""The machine of a simulated engine: how fast it runs one iteration, and what bounds it.

An iteration reads the model's weights once (`base_step_s`), computes its prefill tokens and their attention
to what precedes them, samples for each decoding sequence, and reads the KV cache of all it works on. The sum
is linear in each. The split into a memory-bound decode and a compute-bound prefill follows the roofline
argument (Williams et al., "Roofline", CACM 2009). `extproc calibrate` fits the numbers to a server.
"""

from dataclasses import dataclass

from extproc.errors import ConfigError
from extproc.lab.engine.run import TICKS_PER_S

DEFAULT_BLOCK_SIZE = 16
"""Borrowed: vLLM's default on GPUs, in tokens."""


@dataclass(frozen=True, slots=True)
class StepTicks:
    """A profile's costs in whole ticks, at its speed."""

    base: int
    prefill_token: int
    decode_sequence: int
    kv_token: int
    attention_pair: int

    def step(self, prefill_tokens: int, decoding: int, kv_tokens: int, attention_pairs: int = 0) -> int:
        """Return how long an iteration with this much work takes."""
        prefill = prefill_tokens * self.prefill_token + attention_pairs * self.attention_pair
        return prefill + self.decode_step(decoding, kv_tokens)

    def decode_step(self, decoding: int, kv_tokens: int) -> int:
        """Return how long an iteration without prefill takes."""
        return self.base + decoding * self.decode_sequence + kv_tokens * self.kv_token


def attended_pairs(computed_tokens: int, tokens: int) -> int:
    """Return how many tokens a chunk's tokens attend to: computed ones, earlier ones of the chunk, itself."""
    return tokens * computed_tokens + tokens * (tokens + 1) // 2


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """One machine with one model.

    `kv_token_s` is paid for each token already in the KV cache of a sequence in the batch, `attention_pair_s`
    for each token that a token of a prompt attends to. `request_s`, and `request_token_s`
    for each token of its prompt, is what a request takes outside of the engine, while that works on others:
    HTTP, tokenizing, handing over. A `speed` of 2 halves every time; `kv_cache_tokens` is the memory left
    for the KV cache beside the weights.
    """

    base_step_s: float
    prefill_token_s: float
    decode_sequence_s: float
    kv_token_s: float
    kv_cache_tokens: int
    attention_pair_s: float = 0.0
    request_s: float = 0.0
    request_token_s: float = 0.0
    speed: float = 1.0

    def overhead_s(self, prompt_tokens: int) -> float:
        """Return the seconds that a request takes outside of the engine."""
        return (self.request_s + prompt_tokens * self.request_token_s) / self.speed

    def step_ticks(self) -> StepTicks:
        """Return the same in ticks, each cost rounded to a whole one (a picosecond)."""
        ticks_per_s = TICKS_PER_S / self.speed
        return StepTicks(
            round(self.base_step_s * ticks_per_s),
            round(self.prefill_token_s * ticks_per_s),
            round(self.decode_sequence_s * ticks_per_s),
            round(self.kv_token_s * ticks_per_s),
            round(self.attention_pair_s * ticks_per_s),
        )


# An 8B model in bf16: 16.1 GB of weights, 16.1 GFLOP a prefill token, and 131,072 bytes of KV cache a token
# (32 layers x 8 heads x 128 x key and value x 2 bytes). KV memory is 90 % of the device's, less weights and
# 2 to 3 GB of activations. Bandwidth and FLOPS are borrowed from NVIDIA's data sheets; that 80 to 95 % of the
# bandwidth and 55 % of the FLOPS are reached, and what a sequence costs to sample, is guessed.
PROFILES: dict[str, EngineProfile] = {
    # L4, 24 GB: 300 GB/s, 121 TFLOPS.
    "l4-8b": EngineProfile(
        base_step_s=0.056,
        prefill_token_s=2.4e-4,
        decode_sequence_s=1.0e-4,
        kv_token_s=5.5e-7,
        kv_cache_tokens=27_000,
    ),
    # A100 SXM, 80 GB: 2,039 GB/s, 312 TFLOPS.
    "a100-8b": EngineProfile(
        base_step_s=0.010,
        prefill_token_s=9.4e-5,
        decode_sequence_s=3.0e-5,
        kv_token_s=8.0e-8,
        kv_cache_tokens=400_000,
    ),
    # Four H100 SXM, 80 GB each, as one engine (tensor parallel), Llama-3-70B in bf16: 141 GB of weights, 141
    # GFLOP a prefill token, 327,680 bytes of KV cache a token (80 layers x 8 heads x 128 x key and value x 2
    # bytes). 3,350 GB/s and 989 TFLOPS each by NVIDIA's data sheet, of which 80 % and 50 % are guessed to be
    # reached: with four, the all-reduces of 80 layers take their part. 13.2 ms to read the weights, 2.8 ms
    # guessed for 160 all-reduces and launches. KV: 90 % of 320 GB, less weights and 4 x 4 GB of activations.
    "h100-70b-tp4": EngineProfile(
        base_step_s=0.016,
        prefill_token_s=7.1e-5,
        decode_sequence_s=3.5e-5,
        kv_token_s=3.1e-8,
        kv_cache_tokens=400_000,
    ),
    # Measured: a real vLLM 0.32 (CPU build, tiny Llama in bf16, one thread) on two virtual cores that others
    # used too. By `python -m benchmarks.calibration URL DIR --max-num-seqs 4 --busy-cores 2`, which ends with
    # `extproc calibrate`, 2026-11-23; benchmarks/README.md says how well it predicts.
    "cpu-tiny": EngineProfile(
        base_step_s=5.51e-3,
        prefill_token_s=6.74e-4,
        attention_pair_s=2.07e-7,
        decode_sequence_s=1.50e-3,
        kv_token_s=4.52e-7,
        request_s=1.99e-2,
        request_token_s=3.33e-5,
        kv_cache_tokens=32_768,
    ),
}


def shipped_profile(name: str) -> EngineProfile:
    """Return one of PROFILES; raises ConfigError for another name."""
    if name not in PROFILES:
        raise ConfigError(
            f"profile must be one of {', '.join(PROFILES)}, or the .json file of a calibration, not {name}"
        )
    return PROFILES[name]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The limits of one engine, named as vLLM's options are.

    With an `http_limit`, at most that many requests are inside the engine, running or waiting; the others are
    stuck before it, first come first served, where no gauge of the engine counts them. This is how real
    deployments show a TTFT of 20 s while `num_requests_waiting` reads 0.

    With `adapter_places` (vLLM's `--max-loras`) requests of at most this many adapters run at once.
    """

    kv_cache_tokens: int
    max_num_seqs: int = 256  # borrowed: vLLM's default
    max_num_batched_tokens: int = 2048  # borrowed: vLLM's default for an API server
    block_size: int = DEFAULT_BLOCK_SIZE
    http_limit: int | None = None
    adapter_places: int | None = None

    def __post_init__(self) -> None:
        sizes = {
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "block_size": self.block_size,
            "http_limit": 1 if self.http_limit is None else self.http_limit,
            "adapter_places": 1 if self.adapter_places is None else self.adapter_places,
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
        """Return how many blocks hold this many tokens."""
        return -(-tokens // self.block_size)
