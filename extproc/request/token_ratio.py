"""Tokens per byte of text, by model: learned from what the servers count, used to estimate input lengths.

A tokenizer in the router would have to match every model's and costs more than the rest of the decision.
But a server counts the prompt tokens that it has processed (`vllm:prompt_tokens_total`), and the router
knows the bytes that it sent there, so the quotient of their differences is learned without reading any
response. The chat template's tokens are part of it, as they are of the work.

The counter is taken to count every prompt token of a request, at the end of its prefill, whether it came
from the prefix cache or not. So it was on vLLM 0.32.0: 586 = 490 computed + 96 from the cache; see also
https://github.com/vllm-project/vllm/pull/56923.

The rule of `CounterWindow`, one per backend. A window opens at a scrape. At each later scrape the tokens
counted since belong to the text sent since, except for two kinds of text for which it is unknown on which
side of the edge they were counted: what was in flight at the opening, and what is in flight now. The window
closes, and gives a sample, once the text sent in it is at least 20 times the larger of the two, so that
each edge is wrong by at most 5 %, and at least 2 KB. A window teaches nothing, and another is opened, if
others used the server (foreign load), if more than one model or an unknown text was sent, if there was
media, whose tokens are only a guess, if the counter went backwards (the server was restarted), or if the
caller says so.

`TokenRatios` folds samples by their weight, which is their bytes: the ratio is tokens over bytes, both summed
and forgotten exponentially per byte. A sample outside the range of real tokenizers is an accident, not text.

A model's ratio is the median of its servers': one that counts wrong, or lies, is outvoted where there are two
others. A server of which nothing was learned begins with the median.

All clients share a model's ratio, so no request may move it far: it may be text that no one else sends. Where
one request is more than a sixteenth of its window, the window weighs no more than 16 KiB of text, a 64th of
all that is remembered, nor than all that is known, and counts as at most four times, at least a quarter of
the ratio so far: it moves a settled ratio by 5 % at most. Elsewhere one request has little to say.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import exp
from statistics import median
from typing import Final

from extproc.request.body_facts import InputSize

# Borrowed: four bytes a token is the usual rule for English; the llm-d router estimates by it too.
DEFAULT_TOKENS_PER_BYTE: Final = 0.25

# Guessed: byte-level tokenizers need at most one token a byte, and a template's tokens come on top; below,
# not even long runs of spaces are so few tokens.
MIN_TOKENS_PER_BYTE: Final = 1 / 64
MAX_TOKENS_PER_BYTE: Final = 2.0

MAX_MODELS: Final = 256

# Guessed: this many servers of a model are enough for a median.
MAX_SERVERS: Final = 64

# Guessed: the most tokens of a prompt where no server says how long its context is; and a length that every
# context has, so that most requests are not held against it.
LONGEST_CONTEXT: Final = 1 << 20
SHORTEST_CONTEXT: Final = 128

# Guessed: the default weighs as much as 4 KiB of text, and what was learned fades within 1 MiB.
_DEFAULT_WEIGHT_BYTES: Final = 4096
_MEMORY_BYTES: Final = 1 << 20

# Guessed: for windows of which one request is a large part.
_LARGE_PART: Final = 1 / 16
_DOUBTED_WEIGHT_BYTES: Final = 16 * 1024
_DOUBTED_FACTOR: Final = 4.0

_MIN_WINDOW_BYTES: Final = 2048
_WINDOW_PER_DOUBT: Final = 20


@dataclass(frozen=True, slots=True)
class RatioSample:
    """Text that was sent in one window, how many tokens it was, and the bytes of the longest of its texts."""

    model: str
    tokens: float
    text_bytes: float
    longest_bytes: float


class TokenRatios:
    """The learned ratio of each model; the model that was learned of least recently is forgotten first.

    `longest_prompts` has the most tokens that a prompt of a model can have, where its servers say so.
    """

    __slots__ = ("_ratios", "_sums", "longest_prompts")

    def __init__(self) -> None:
        self.longest_prompts: Mapping[str | None, float] = {}
        self._ratios: dict[str, float] = {}
        self._sums: dict[str, dict[Hashable, tuple[float, float]]] = {}

    def tokens_per_byte(self, model: str | None) -> float:
        """Return a ratio between 1/64 and 2; the default for a model of which nothing was learned."""
        return DEFAULT_TOKENS_PER_BYTE if model is None else self._ratios.get(model, DEFAULT_TOKENS_PER_BYTE)

    def estimate(self, model: str | None, size: InputSize) -> int:
        """Return the input's tokens, at least 1 if there is any input.

        A prompt that would not fit into the model's context is refused, whatever its length: no more than the
        context is ever computed of it.
        """
        tokens = round(size.text_bytes * self.tokens_per_byte(model)) + size.exact_tokens + size.media_tokens
        if tokens > SHORTEST_CONTEXT:
            longest = self.longest_prompts.get(model, LONGEST_CONTEXT) * size.prompts
            if tokens > longest:
                return int(longest)
        return tokens or min(1, size.text_bytes)

    def learn(self, sample: RatioSample, server: Hashable = None) -> None:
        """Fold in a sample of a server; an implausible one is ignored."""
        model, text_bytes = sample.model, sample.text_bytes
        if text_bytes <= 0 or not MIN_TOKENS_PER_BYTE <= sample.tokens / text_bytes <= MAX_TOKENS_PER_BYTE:
            return
        servers = self._sums.pop(model, {})
        begins_with = (_DEFAULT_WEIGHT_BYTES * self.tokens_per_byte(model), float(_DEFAULT_WEIGHT_BYTES))
        servers[server] = _folded(servers.pop(server, begins_with), sample)
        if len(servers) > MAX_SERVERS:
            del servers[next(iter(servers))]
        self._sums[model] = servers
        self._ratios[model] = median([tokens / size for tokens, size in servers.values()])
        if len(self._sums) > MAX_MODELS:
            forgotten = next(iter(self._sums))
            del self._sums[forgotten], self._ratios[forgotten]


def _folded(sums: tuple[float, float], sample: RatioSample) -> tuple[float, float]:
    """Return the sums of tokens and bytes with a sample."""
    known_tokens, known_bytes = sums
    known, ratio, weight = known_tokens / known_bytes, sample.tokens / sample.text_bytes, sample.text_bytes
    if sample.longest_bytes > _LARGE_PART * sample.text_bytes:
        weight = min(weight, _DOUBTED_WEIGHT_BYTES, known_bytes)
        ratio = max(known / _DOUBTED_FACTOR, min(known * _DOUBTED_FACTOR, ratio))
    kept = exp(-weight / _MEMORY_BYTES)
    return known_tokens * kept + ratio * weight, known_bytes * kept + weight


class CounterWindow:
    """Watches one backend: what was sent to it, what ended, and its prompt-token counter at each scrape."""

    def __init__(self) -> None:
        self._in_flight_bytes = 0.0
        self._media_in_flight = 0
        self._last_total = 0.0
        self._model: str | None = None
        self._text_bytes = self._longest_bytes = self._exact_tokens = 0
        self._open(0.0, is_spoiled=True)

    def sent(self, model: str | None, size: InputSize) -> None:
        """Note a request; `model` is None where the text is unknown (unreadable, or no known API)."""
        self._in_flight_bytes += _as_text_bytes(size)
        self._media_in_flight += size.media_tokens
        self._text_bytes += size.text_bytes
        longest = self._longest_bytes
        self._longest_bytes = size.text_bytes if size.text_bytes > longest else longest
        self._exact_tokens += size.exact_tokens
        if model is None or size.media_tokens or (self._model != model and self._model is not None):
            self._is_spoiled = True
        self._model = model

    def finished(self, size: InputSize) -> None:
        """Note that a request that was sent has ended; that it failed is learned later, by `spoil`."""
        self._in_flight_bytes -= _as_text_bytes(size)
        self._media_in_flight -= size.media_tokens

    def spoil(self) -> None:
        """Let the window teach nothing: it is not known what a failure does to the counter."""
        self._is_spoiled = True

    def counter(self, prompt_tokens_total: float, foreign: float) -> RatioSample | None:
        """Follow a scrape; return the sample of a window that closes with it."""
        went_backwards = prompt_tokens_total < self._last_total
        self._last_total = prompt_tokens_total
        if self._is_spoiled or foreign > 0 or went_backwards:
            self._open(prompt_tokens_total, is_spoiled=foreign > 0 or self._media_in_flight > 0)
            return None
        doubt = max(self._doubtful_bytes, self._in_flight_bytes)
        if self._model is None or self._text_bytes < max(_MIN_WINDOW_BYTES, _WINDOW_PER_DOUBT * doubt):
            return None
        tokens = prompt_tokens_total - self._opening_total - self._exact_tokens
        sample = RatioSample(self._model, tokens, self._text_bytes, self._longest_bytes)
        self._open(prompt_tokens_total, is_spoiled=False)
        return sample

    def _open(self, prompt_tokens_total: float, *, is_spoiled: bool) -> None:
        self._opening_total = prompt_tokens_total
        self._doubtful_bytes = self._in_flight_bytes
        self._text_bytes = 0
        self._longest_bytes = 0
        self._exact_tokens = 0
        self._model = None
        self._is_spoiled = is_spoiled


def _as_text_bytes(size: InputSize) -> float:
    """Return text bytes of about as many tokens, for requests that are in doubt."""
    return size.text_bytes + (size.exact_tokens + size.media_tokens) / DEFAULT_TOKENS_PER_BYTE
