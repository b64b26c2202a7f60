"""Layer 1: which candidates are fit to take a request at all."""

from extproc.fleet.load import Bools
from extproc.fleet.view import FleetView


def admitted(view: FleetView, occupies_engine: bool) -> Bools:
    """The candidates that neither fail nor are saturated, shape (n_candidates,).

    A request without a body (a list of models, a health check) does not occupy the engine, so saturation
    is no reason to refuse it.
    """
    return view.is_admitting & view.has_room if occupies_engine else view.is_admitting
