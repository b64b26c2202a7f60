"""Where a request goes that its backend did not answer: to another backend that serves the same.

Envoy makes the second attempt by itself, from a cluster that was written for the first choice. It holds the
next few members, in the order of the fleet, that do not fail and serve whatever the first choice serves; so
the requests of a dying backend spread, and a fleet of any size needs a few lines for each backend. Where
no other serves all of it, those that share some of it, and requests for its other models have no second
attempt; where none does, the backend itself: that still mends a connection which the server closed a moment
ago. Nothing says which peers could serve the models of a backend without known ones, so others like it
stand in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.endpoint import Endpoint

MAX_PEERS = 4
"""Guessed: enough that one of them has room, few enough that clusters stay small."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The endpoints that stand in for a member, at least one, and the models that all of them serve.

    `models` is None where that is all that the member serves.
    """

    endpoints: tuple[Endpoint, ...]
    models: frozenset[str] | None = None


def retry_peers(members: Sequence[Backend]) -> dict[str, Peers]:
    """Return what stands in for each member, by its name.

    One that is joining will do: it is reached as part of the retry's cluster, not by its own.
    """
    fit = [
        member
        for member in members
        if member.endpoint.serves_http
        and not (member.lifecycle is Lifecycle.DRAINING or member.breaker.is_tripped or member.is_asleep)
    ]
    position = {member: index for index, member in enumerate(fit)}
    standing_in: dict[frozenset[str] | None, tuple[list[Backend], list[Backend]]] = {}
    peers: dict[str, Peers] = {}
    for index, member in enumerate(members):
        models = member.models
        if models not in standing_in:
            standing_in[models] = (
                [other for other in fit if _serves_all(other, models)],
                [other for other in fit if _serves_some(other, models)],
            )
        equals, others = (_next(ring, member, position.get(member, index)) for ring in standing_in[models])
        peers[member.name] = _peers(member, equals, others)
    return peers


def follow_peers(members: Sequence[Backend], peers: Mapping[str, Peers]) -> None:
    """Have members know which of their requests may be tried again, by the peers that Envoy has for them."""
    for member in members:
        known = peers.get(member.name)
        if known is not None:
            member.retried_models = known.models


def _peers(member: Backend, equals: Sequence[Backend], others: Sequence[Backend]) -> Peers:
    chosen = equals or others
    if not chosen:
        return Peers((member.endpoint,))
    if equals:  # peers that do not load adapters by themselves lack those that are not listed
        is_more = member.endpoint.resolves_adapters and not all(
            other.endpoint.resolves_adapters for other in equals
        )
        shared = member.models if is_more else None
    else:
        shared = frozenset.intersection(*(other.models or frozenset() for other in others))
    return Peers(tuple(other.endpoint for other in chosen), shared)


def _next(ring: Sequence[Backend], member: Backend, start: int) -> list[Backend]:
    """Return the members of the ring that follow the one that is left out."""
    turned = (ring[(start + offset) % len(ring)] for offset in range(len(ring)))
    return list(islice((other for other in turned if other.name != member.name), MAX_PEERS))


def _serves_all(other: Backend, models: frozenset[str] | None) -> bool:
    return other.models is None if models is None else other.models is not None and models <= other.models


def _serves_some(other: Backend, models: frozenset[str] | None) -> bool:
    return models is not None and other.models is not None and bool(models & other.models)
