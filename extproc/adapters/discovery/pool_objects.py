"""Objects that belong to an InferencePool: priorities of objectives, and rewrites of models.

See https://llm-d.ai; before, both kinds were in the group of the Gateway API Inference Extension.
"""

from collections.abc import Iterable

import msgspec

from extproc.adapters.discovery.kubernetes_objects import KubernetesObject
from extproc.request.model_rewrite import RewriteRule, RewriteTarget

GROUPS = ("llm-d.ai", "inference.networking.x-k8s.io")
"""Where both have an object of one name, that of the first counts."""

VERSION = "v1alpha2"
POOL_GROUP = "inference.networking.k8s.io"


class PoolReference(msgspec.Struct):
    """The pool that an object belongs to."""

    name: str
    group: str = POOL_GROUP


class ObjectiveSpec(msgspec.Struct, rename="camel"):
    """A priority: the larger, the earlier; without one it is 0."""

    pool_ref: PoolReference
    priority: int | None = None


class InferenceObjective(KubernetesObject):
    """One objective, as far as it is read."""

    spec: ObjectiveSpec


class MatchedModel(msgspec.Struct):
    """The name of a model; it is compared exactly."""

    value: str
    type: str = "Exact"


class RewriteMatch(msgspec.Struct):
    """The requests that a rule is for."""

    model: MatchedModel | None = None


class TargetModel(msgspec.Struct, rename="camel"):
    """A new model; where others have a weight, one without is never drawn."""

    model_rewrite: str
    weight: int | None = None


class Rewrite(msgspec.Struct):
    """One rule; without matches it is for any model."""

    matches: list[RewriteMatch] = []
    targets: list[TargetModel] = []

    @property
    def rule(self) -> RewriteRule | None:
        """The rule as it is used; None where it can match or choose nothing."""
        models = {one.model.value for one in self.matches if one.model and one.model.type == "Exact"}
        targets = [RewriteTarget(one.model_rewrite, max(0, one.weight or 0)) for one in self.targets]
        is_usable = bool(targets) and bool(models) == bool(self.matches)
        return RewriteRule(frozenset(models), targets) if is_usable else None


class RewriteSpec(msgspec.Struct, rename="camel"):
    """All rules of one object."""

    pool_ref: PoolReference
    rules: list[Rewrite]


class InferenceModelRewrite(KubernetesObject):
    """One object with rules, as far as it is read."""

    spec: RewriteSpec


def _belongs(reference: PoolReference, pool: str) -> bool:
    return (reference.name, reference.group) == (pool, POOL_GROUP)


def priorities_of(objectives: Iterable[InferenceObjective], pool: str) -> dict[str, int]:
    """Return the priorities of the pool's objectives by name; of two with one name, that of the last."""
    return {
        one.metadata.name: one.spec.priority or 0
        for one in objectives
        if _belongs(one.spec.pool_ref, pool) and one.metadata.deletion_timestamp is None
    }


def rules_of(rewrites: Iterable[InferenceModelRewrite], pool: str) -> list[RewriteRule]:
    """Return the pool's rules, those of the oldest object first, and of equally old ones by their names."""
    ours = [
        one
        for one in rewrites
        if _belongs(one.spec.pool_ref, pool) and one.metadata.deletion_timestamp is None
    ]
    ours.sort(key=lambda one: (one.metadata.creation_timestamp or "", one.metadata.name))
    return [rule for one in ours for listed in one.spec.rules if (rule := listed.rule) is not None]
