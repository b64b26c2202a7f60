"""A server's answer to `GET /v1/models`: the names that it serves, adapters included, and their contexts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import msgspec

MAX_MODELS = 1024
MAX_NAME = 256
MAX_CONTEXT = 1 << 30
"""Guessed: no server has a longer context, in tokens."""


class ListedModel(msgspec.Struct):
    """A model in the list; `max_model_len` is an integer where the server says how long its context is.

    `parent` is the model that an adapter belongs to.
    """

    id: str
    max_model_len: object = None
    parent: object = None


class _ModelList(msgspec.Struct):
    data: list[ListedModel]


def decode_models(body: bytes) -> list[ListedModel]:
    """Return the list as it is; raises msgspec.DecodeError or UnicodeDecodeError where there is none."""
    return msgspec.json.decode(body, type=_ModelList).data


@dataclass(frozen=True, slots=True)
class ServedModels:
    """The names that are taken from a list, and how many more it has.

    `context_lengths` are those that it tells, `bases` the models that its adapters belong to.
    """

    names: frozenset[str]
    left_out: int = 0
    context_lengths: Mapping[str, int] = field(default_factory=dict)
    bases: Mapping[str, str] = field(default_factory=dict)


def read_models(body: bytes) -> ServedModels | None:
    """Return what the server serves; None where the body is no list of models.

    Servers list the models that they were started with first, and adapters behind them. The first
    `MAX_MODELS` are taken, and none whose name is longer than `MAX_NAME`.
    """
    try:
        models = decode_models(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    names = dict.fromkeys(model.id for model in models)
    taken = frozenset(islice((name for name in names if len(name) <= MAX_NAME), MAX_MODELS))
    lengths, bases = {}, {}
    for model in models[:MAX_MODELS]:
        if type(model.max_model_len) is int and 0 < model.max_model_len <= MAX_CONTEXT:
            lengths[model.id] = model.max_model_len
        if isinstance(model.parent, str):
            bases[model.id] = model.parent
    return ServedModels(taken, len(names) - len(taken), lengths, bases) if taken else None
