"""Where a request goes that its backend did not answer: to another backend that serves the same.

Envoy makes the second attempt by itself, from a cluster that was written for the first choice. It holds the
next few members, in the order of the fleet, that do not fail and serve whatever the first choice serves; so
the requests of a dying backend spread, and a fleet of any size needs a few lines for each backend. Where
no other serves all of it, those that share some of it; where none does, the backend itself: that still mends
a connection which the server closed a moment ago.
"""

from collections.abc import Sequence
from itertools import islice

from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.endpoint import Endpoint

MAX_PEERS = 4
"""Guessed: enough that one of them has room, few enough that clusters stay small."""


def retry_peers(members: Sequence[Backend]) -> dict[str, tuple[Endpoint, ...]]:
    """Return the endpoints that stand in for each member, by its name; at least one each.

    One that is joining will do: it is reached as part of the retry's cluster, not by its own.
    """
    fit = [
        member
        for member in members
        if member.lifecycle is not Lifecycle.DRAINING and not member.breaker.is_tripped
    ]
    position = {member: index for index, member in enumerate(fit)}
    standing_in: dict[frozenset[str] | None, list[list[Backend]]] = {}
    peers: dict[str, tuple[Endpoint, ...]] = {}
    for index, member in enumerate(members):
        if member.models not in standing_in:
            standing_in[member.models] = [
                [other for other in fit if _serves_all(other, member.models)],
                [other for other in fit if _serves_some(other, member.models)],
            ]
        start = position.get(member, index)
        chosen = next(filter(None, (_next(ring, member, start) for ring in standing_in[member.models])), ())
        peers[member.name] = chosen or (member.endpoint,)
    return peers


def _next(ring: Sequence[Backend], member: Backend, start: int) -> tuple[Endpoint, ...]:
    """Return the members of the ring that follow the one that is left out."""
    turned = (ring[(start + offset) % len(ring)] for offset in range(len(ring)))
    others = (other.endpoint for other in turned if other.name != member.name)
    return tuple(islice(others, MAX_PEERS))


def _serves_all(other: Backend, models: frozenset[str] | None) -> bool:
    return models is None or (other.models is not None and models <= other.models)


def _serves_some(other: Backend, models: frozenset[str] | None) -> bool:
    return models is None or (other.models is not None and bool(models & other.models))
