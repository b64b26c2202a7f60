"""Other names for models, with weights: the `InferenceModelRewrite` objects of an InferencePool.

A rule names the models that it is for, or is for any, and has targets, of which one is drawn by weight: a
canary, or a base model behind a public name. The rule that names the model comes before one for any model,
and the rule of the older object before that of a newer one. Without a rule the model stays. A rewritten name
is not rewritten again.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

MAX_WRITTEN_BYTES = 1 << 16
"""Guessed: larger bodies are not written anew, which takes 100 ms for each MiB of short fields (measured)."""

_NAME: Final = re.compile(rb'"model"\s*:\s*("[^"\\]{0,512}")')


@dataclass(frozen=True, slots=True)
class RewriteTarget:
    """A model that may take a request, and its share in relation to the others'."""

    model: str
    weight: int


@dataclass(frozen=True, slots=True)
class RewriteRule:
    """The models that it is for, any where there is none, and at least one target."""

    models: frozenset[str]
    targets: Sequence[RewriteTarget]


class ModelRewrites:
    """The rules in force; `replace` puts others in their place."""

    def __init__(self) -> None:
        self._by_model: dict[str, RewriteRule] = {}
        self._of_any: RewriteRule | None = None

    @property
    def are_none(self) -> bool:
        """Whether there is no rule."""
        return not self._by_model and self._of_any is None

    def replace(self, rules: Iterable[RewriteRule]) -> None:
        """Take these rules, the oldest first."""
        self._by_model, self._of_any = {}, None
        for rule in rules:
            for model in rule.models:
                self._by_model.setdefault(model, rule)
            if not rule.models and self._of_any is None:
                self._of_any = rule

    def target(self, model: str | None, draw: float) -> str | None:
        """Return the model that a request for `model` is to have; `draw` is a random number in [0, 1).

        A request without a model has no name to change.
        """
        rule = None if model is None else self._by_model.get(model, self._of_any)
        return model if rule is None else _drawn(rule.targets, draw)


def _drawn(targets: Sequence[RewriteTarget], draw: float) -> str:
    """Return one target by weight; where no target has one, they are equal."""
    total = sum(target.weight for target in targets)
    if not total:
        return targets[int(draw * len(targets))].model
    reached = draw * total
    for target in targets:
        reached -= target.weight
        if reached < 0:
            return target.model
    return targets[-1].model


def rewritten(rewrites: ModelRewrites, draw: Callable[[], float], body: bytes) -> bytes:
    """Return the body of a request with the model that it is to have; itself where no rule is for it.

    A body that cannot be read here, such as a compressed one, keeps its model.
    """
    if rewrites.are_none:
        return body
    model = _model_of(body)
    if model is None:
        return body
    target = rewrites.target(model, draw())
    if target is None or target == model:
        return body
    return with_model(body, target) or body


class _Named(msgspec.Struct):
    model: str


def _model_of(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_Named).model
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def with_model(body: bytes, model: str) -> bytes | None:
    """Return a JSON body with another model, its other values as they are; None where it is no such body."""
    if len(body) > MAX_WRITTEN_BYTES:
        return _spliced(body, model)
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if "model" not in fields:
        return None
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


def _spliced(body: bytes, model: str) -> bytes | None:
    """Put the name in its place; that is the first or the last of all that look like it."""
    name = msgspec.json.encode(model)
    for look_at in (_NAME.search, _last_name):
        found = look_at(body)
        if found is not None:
            changed = b"".join((body[: found.start(1)], name, body[found.end(1) :]))
            if _model_of(changed) == model:
                return changed
    return None


def _last_name(body: bytes) -> re.Match[bytes] | None:
    return _NAME.match(body, max(0, body.rfind(b'"model"')))
