"""The candidates that a request looks at: all of them, or of a large fleet those that can win.

The best of some dozens taken at random is nearly as good as the best of all (Mitzenmacher, "The power of two
choices in randomized load balancing", 2001, where two are enough for most of it). Chance would miss the few
that hold this prompt, the home of its session, and those where its adapter runs: they are always among them.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from extproc.fleet.backend import Backend
from extproc.fleet.fleet import Fleet
from extproc.fleet.registry import lists, may_be_chosen
from extproc.request.request import Request

MOST_LOOKED_AT = 64
"""Guessed: a decision over this many takes 40 µs; `benchmarks/README.md` has what is lost by it."""

MOST_HOLDERS = 15
"""A block that more backends hold is a common one, and chance finds some of them."""

TAKEN_AT_RANDOM = MOST_LOOKED_AT - MOST_HOLDERS - 1


def contenders(
    candidates: Sequence[Backend], fleet: Fleet, request: Request, rng: np.random.Generator
) -> Sequence[Backend]:
    """Return at most `MOST_LOOKED_AT` of the candidates, and `MOST_HOLDERS` more that run its adapter."""
    if len(candidates) <= MOST_LOOKED_AT:
        return candidates
    found = some_of(candidates, TAKEN_AT_RANDOM, rng)
    home = fleet.sessions.home(request)
    known = [*fleet.prefixes.holders(request.prefix, MOST_HOLDERS), *([home.backend] if home else [])]
    for backend in known:
        if _serves(backend, request.model):
            found[backend] = None
    if fleet.has_adapters and request.model is not None:
        found |= dict.fromkeys(islice(_running(candidates, request.model), MOST_HOLDERS))
    return list(found)


def some_of(backends: Sequence[Backend], most: int, rng: np.random.Generator) -> dict[Backend, None]:
    """Return at most this many of the backends, taken at random."""
    numbers = rng.integers(0, len(backends), most).tolist()
    return dict.fromkeys([backends[number] for number in numbers])


def _running(candidates: Sequence[Backend], model: str) -> Iterator[Backend]:
    for backend in candidates:
        if backend.adapters is not None and backend.adapters.is_running(model):
            yield backend


def _serves(backend: Backend, model: str | None) -> bool:
    is_listed = model is None or lists(backend, model)
    return may_be_chosen(backend) and (is_listed or backend.endpoint.resolves_adapters)
