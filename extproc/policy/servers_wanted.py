"""How many servers a model's requests want, by the estimate: what an autoscaler goes by.

A server is used up when one more request would have to wait: as a share, the places that are taken, or the
time for the prompts ahead as part of the longest wait that the guard allows, whichever is more. Requests that
wait in the router's queue want places as well. This is the rule of Kubernetes' own autoscaler, the use of all
divided by the use that each should have
(https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/).
"""

from math import ceil
from typing import NamedTuple

from extproc.fleet.backend import Backend
from extproc.fleet.view import FleetView

TARGET = 0.8
"""Guessed: how much of a server is to be used; the rest is for what comes until another one has started."""


class Use(NamedTuple):
    """How many servers are used up, in all, and the requests that one can take; 0 where there is none."""

    servers: float = 0.0
    room: float = 0.0


def use_of(view: FleetView) -> Use:
    """Return how far some backends are used."""
    if not view.backends:
        return Use()
    pairs = zip(view.backends, view.loads, strict=True)
    used = sum(_share_used(backend, load, view.now_s) for backend, load in pairs)
    return Use(used, sum(map(_room, view.backends)) / len(view))


def servers_wanted(use: Use, waiting: int) -> int:
    """Return the number of servers for what the backends of a model have, and for this many that wait.

    It is 0 where there is nothing to do, and 1 while nothing is known of the model's servers.
    """
    used = use.servers + (waiting / use.room if use.room else 0.0)
    return max(1, ceil(used / TARGET)) if used or waiting else 0


def _share_used(backend: Backend, load: float, now_s: float) -> float:
    prompts_ahead_s = max(0.0, backend.prefilled_at_s - now_s)
    return max(load / _room(backend), prompts_ahead_s / backend.longest_wait_s)


def _room(backend: Backend) -> float:
    return min(backend.places, backend.limits.max_active)
