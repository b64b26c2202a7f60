"""Tries a backend that nothing was heard of, before the layers decide (`fleet.silence`).

A try is worth what it may show, but the request pays for it: by the estimate, the first token may come later
than elsewhere by half of the time that the backend was silent for. So one that is believed to be slow by some
seconds is tried after twice as many, and one that is believed to be useless hardly ever.
"""

from itertools import islice

from extproc.fleet.view import FleetView

COST_SHARE = 0.5
"""Guessed, see above."""

MAX_TRIED = 4
"""Guessed: this many of the silent are looked at in one decision, those that are due for longest."""


def worth_trying(view: FleetView, scores: list[float]) -> int | None:
    """Return the number of a candidate that is due, and for which this request does not pay too much."""
    numbers = {backend: number for number, backend in enumerate(view.backends)}
    least = min(scores)
    for backend in islice(view.watched.unheard, MAX_TRIED):
        number = numbers.get(backend)
        if number is not None:
            silent_s = view.now_s - backend.silence.since_s
            if scores[number] - least <= COST_SHARE * silent_s:
                return number
    return None
