"""Layer 1: which candidates are fit to take a request at all."""

from extproc.fleet.view import FleetView


def admitted(view: FleetView, occupies_engine: bool) -> list[int]:
    """The positions of the candidates that neither fail nor are saturated.

    A request without a body (a list of models, a health check) does not occupy the engine, so saturation
    is no reason to refuse it.
    """
    return view.fit() if occupies_engine else view.admitting()
