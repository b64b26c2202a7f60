"""Where the adapter of a request runs already, or where a place for it is free, in the terms of the estimate.

The wait for an adapter is put in time, so that a crowded server is left for an idle one
that has to load the weights first. It is expressed as tokens that the request's prompt has more to compute
there: so it counts for the choice among backends alone, and costs nothing where there are no adapters. The
guard, the bookings and what is learned of servers go without it.
"""

from collections.abc import Mapping, Sequence

from extproc.fleet.adapter_places import AdapterWait
from extproc.fleet.backend import Backend

LOADING_S = 0.05
"""Guessed: for weights of tens of megabytes from the CPU's memory; it also keeps adapters together."""

CROWDED_S = 0.1
"""Tried on simulated fleets: more than loading, so that a popular adapter is loaded by another server
where the first one has more requests than the mean, and less than waiting for a place."""

FEW = 4.0
"""Guessed: a server with so few requests is not crowded, however idle the others are."""

SHORTEST_PLACE_S = 0.5
"""Guessed: at the least for a place that is taken by others, until the last of their requests has ended."""


def near_tokens(
    model: str, candidates: Sequence[Backend], near: Mapping[Backend, float], fresh_from_s: float
) -> Mapping[Backend, float]:
    """Return the tokens that each candidate is near to, less what waiting for the adapter stands for there.

    It is `near` itself where nothing has to be waited for, and where `model` is no adapter.
    """
    mean_load = sum(backend.own + backend.foreign for backend in candidates) / max(1, len(candidates))
    usual = max(FEW, mean_load)
    waits_s = {backend: _wait_s(model, backend, fresh_from_s, usual) for backend in candidates}
    if not any(waits_s.values()):
        return near
    return {
        backend: near.get(backend, 0.0) - wait_s / backend.pace.token_s for backend, wait_s in waits_s.items()
    }


def _wait_s(model: str, backend: Backend, fresh_from_s: float, usual_load: float) -> float:
    places = backend.adapters
    if places is None or not places.is_adapter(model):
        return 0.0
    wait = places.wait(model, is_fresh=backend.scraped_at_s >= fresh_from_s)
    load = backend.own + backend.foreign
    wait_s = CROWDED_S if load > usual_load else 0.0
    if wait is AdapterWait.PLACE:
        # Little's law: a request stays for as long as it takes until all that are there have ended.
        return wait_s + max(SHORTEST_PLACE_S, backend.pace.turn_s * load)
    return wait_s + (LOADING_S if wait is AdapterWait.LOADING else 0.0)
