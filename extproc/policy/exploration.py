"""Tries a backend that nothing was heard of, before the layers decide (`fleet.silence`).

A try is worth what it may show, but the request pays for it: by the estimate, the first token may come later
than elsewhere by half of the time that the backend was silent for. So one that is believed to be slow by some
seconds is tried after twice as many, and one that is believed to be useless hardly ever.
"""

from itertools import islice

from extproc.fleet.backend import Backend
from extproc.fleet.view import FleetView
from extproc.policy.least_load import Score

COST_SHARE = 0.5
"""Guessed, see above."""

MAX_TRIED = 4
"""Guessed: so many of the silent are looked at in one decision, those that are due for longest."""


def worth_trying(view: FleetView, prompt_tokens: float, score: Score) -> Backend | None:
    """Return a backend of the view that is due, and for which this request does not pay too much."""
    members = set(view.backends)
    due = [backend for backend in islice(view.watched.unheard, MAX_TRIED) if backend in members]
    if not due:
        return None
    found = dict(zip(view.backends, score(view, prompt_tokens), strict=True))
    least = min(found.values())
    for backend in due:
        if found[backend] - least <= COST_SHARE * (view.now_s - backend.silence.since_s):
            return backend
    return None
