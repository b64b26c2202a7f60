"""The requests of a load generator: how long prompts and outputs are, when requests arrive, and at which
rates.

Arrivals are a Poisson process given its number: a step of a schedule has a fixed number of requests, at
times that are uniform and sorted, which is how a Poisson process is distributed once its count is known
(Ross, "Stochastic Processes", section 2.3). So no more is ever sent than the schedule says. Lengths are
lognormal, as in published traces of LLM services, or one of the other shapes that are useful in tests.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.errors import ConfigError

MAX_TOKENS = 1_000_000
"""Guessed: above every model's context; it bounds what a heavy tail or a typing error may ask for."""
MAX_RATE = 10_000.0  # guessed: beyond what one process can send
MAX_SIGMA = 5.0  # guessed: a lognormal that spans 20 orders of magnitude is no length

LENGTH_COLUMNS = ("prompt_tokens", "output_tokens")

_EXPECTED = (
    "fixed:N, lognormal:MEDIAN:SIGMA, mix:SHORT:LONG:SHARE_OF_LONG or csv:FILE, "
    f"lengths from 1 to {MAX_TOKENS} tokens"
)

Tokens = npt.NDArray[np.int64]
"""Lengths in tokens, each at least 1."""
ReadTable = Callable[[str], Mapping[str, Tokens]]
"""Reads the columns `LENGTH_COLUMNS` of the file that a distribution names."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same length."""

    tokens: int

    def draw(self, rng: np.random.Generator, n: int) -> Tokens:
        """Return `n` times the same."""
        return np.full(n, self.tokens, np.int64)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Half of the lengths are below `median`; `sigma` is the standard deviation of their logarithm."""

    median: float
    sigma: float

    def draw(self, rng: np.random.Generator, n: int) -> Tokens:
        """Draw `n` lengths, rounded and cut to 1 and MAX_TOKENS."""
        drawn = rng.lognormal(math.log(self.median), self.sigma, n)
        return np.clip(np.rint(drawn), 1, MAX_TOKENS).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Mix:
    """Two classes of requests: `share_of_long` (0 to 1) of them are `long`, the others `short`."""

    short: int
    long: int
    share_of_long: float

    def draw(self, rng: np.random.Generator, n: int) -> Tokens:
        """Draw `n` lengths of the two."""
        return np.where(rng.random(n) < self.share_of_long, self.long, self.short).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """Lengths that were measured; `origin` says where, and makes two columns of one file a pair."""

    tokens: Tokens
    origin: str

    def draw(self, rng: np.random.Generator, n: int) -> Tokens:
        """Draw `n` of the lengths, with replacement."""
        return self.tokens[rng.integers(len(self.tokens), size=n)]


Lengths = Fixed | Lognormal | Mix | Listed


@dataclass(frozen=True, slots=True)
class Workload:
    """The shape of requests."""

    prompt: Lengths
    output: Lengths

    def draw(
        self, rng: np.random.Generator, n: int, max_model_len: int | None = None
    ) -> tuple[Tokens, Tokens]:
        """Draw prompt and output lengths of `n` requests, cut to what the model's context holds of both.

        Both from one list are drawn as rows, so that a long prompt keeps the output that it had.
        """
        if (
            isinstance(self.prompt, Listed)
            and isinstance(self.output, Listed)
            and self.prompt.origin == self.output.origin
        ):
            rows = rng.integers(len(self.prompt.tokens), size=n)
            prompt, output = self.prompt.tokens[rows], self.output.tokens[rows]
        else:
            prompt, output = self.prompt.draw(rng, n), self.output.draw(rng, n)
        if max_model_len is None:
            return prompt, output
        output = np.clip(output, 1, max(1, max_model_len - 1))
        return np.clip(prompt, 1, np.maximum(1, max_model_len - output)), output


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of time at one rate, in requests per second; passes count from 1."""

    pass_number: int
    rate: float
    duration_s: float

    def arrivals(self, requests_per_arrival: int) -> int:
        """Return the arrivals of the step if each has this many requests; never more than its rate says."""
        return math.floor(self.rate * self.duration_s / requests_per_arrival + 1e-9)


@dataclass(frozen=True, slots=True)
class Schedule:
    """`passes` times the `rates` in order, each for `step_s` seconds."""

    rates: tuple[float, ...]
    step_s: float
    passes: int

    def steps(self, pass_number: int) -> list[Step]:
        """Return the steps of one pass."""
        return [Step(pass_number, rate, self.step_s) for rate in self.rates]


def arrival_offsets_s(rng: np.random.Generator, arrivals: int, duration_s: float) -> npt.NDArray[np.float64]:
    """Return the times of a step's arrivals, in seconds from its start, sorted."""
    return np.sort(rng.uniform(0.0, duration_s, arrivals))


def parse_rates(text: str) -> tuple[float, ...]:
    """Read rates such as "0.5,1,2", smallest first, none twice; raises ConfigError for other text."""
    try:
        rates = {float(part) for part in text.split(",")}
    except ValueError:
        rates = set()
    if not rates or not all(0 < rate <= MAX_RATE for rate in rates):
        raise ConfigError(
            f"rates: expected requests per second such as 0.5,1,2, up to {MAX_RATE:g}, not {text!r}"
        )
    return tuple(sorted(rates))


def parse_lengths(text: str, column: str, read_table: ReadTable) -> Lengths:
    """Return the distribution that a text names; `column` is what it takes from a CSV file.

    Raises ConfigError, saying what is expected.
    """
    name, _, rest = text.partition(":")
    if name == "csv" and rest:
        return Listed(read_table(rest)[column], rest)
    try:
        lengths = _parsed(name, [float(part) for part in rest.split(":")])
    except ValueError:
        lengths = None
    if lengths is None:
        raise ConfigError(f"{column}: expected {_EXPECTED}, not {text!r}")
    return lengths


def _parsed(name: str, numbers: list[float]) -> Lengths | None:
    match name, numbers:
        case "fixed", [tokens] if _is_length(tokens):
            return Fixed(int(tokens))
        case "lognormal", [median, sigma] if 1 <= median <= MAX_TOKENS and 0 <= sigma <= MAX_SIGMA:
            return Lognormal(median, sigma)
        case "mix", [short, long, share] if _is_length(short) and _is_length(long) and 0 <= share <= 1:
            return Mix(int(short), int(long), share)
    return None


def _is_length(number: float) -> bool:
    return 1 <= number <= MAX_TOKENS and number.is_integer()
