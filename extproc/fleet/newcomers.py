"""Members that joined a moment ago: they are not chosen yet, or have not said yet what they serve."""

from collections.abc import Sequence

from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.registry import lists

HEARD_WITHIN_S = 2.5
"""Guessed: from when a server may be chosen; one that can be reached has said what it serves by then."""


def joining_models(members: Sequence[Backend]) -> frozenset[str]:
    """Return what those serve that are joining."""
    joining = {member.models for member in members if member.lifecycle is Lifecycle.JOINING}
    return frozenset().union(*filter(None, joining))


def is_joining(model: str, members: Sequence[Backend]) -> bool:
    """Return whether a member that serves `model` will be chosen within moments."""
    return any(member.lifecycle is Lifecycle.JOINING and lists(member, model) for member in members)


def is_any_unheard(members: Sequence[Backend], now_s: float) -> bool:
    """Return whether a member that is new has not said yet what it serves."""
    return any(
        member.models is None
        and member.changes_at_s > now_s - HEARD_WITHIN_S
        and member.lifecycle is not Lifecycle.DRAINING
        and member.endpoint.can_answer
        and member.endpoint.serves_http
        for member in members
    )
