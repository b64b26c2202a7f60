"""Models without a server that may get one: they are scaled to zero, and waiting requests start them."""

from extproc.fleet.registry import Registry
from extproc.request.request import Request
from extproc.routing.queue.queue_rules import QueueRules


class StartingModels:
    """Tells whether a request's model is at zero; `waited_for` has those that requests wait for."""

    def __init__(self, registry: Registry, rules: QueueRules) -> None:
        self.waited_for: set[str | None] = set()
        self._registry = registry
        self._rules = rules

    def is_at_zero(self, request: Request) -> bool:
        """Return whether no server serves its model now, but one may be started for it.

        One that has not said yet what it serves is none: it may not even listen.
        """
        model = request.model
        if model is None or self._registry.is_served(model) or not request.has_body or request.response:
            return False
        return self.may_be_started(model) and self._rules.max_start_wait_s > 0

    def may_be_started(self, model: str) -> bool:
        """Return whether a server may be started for the model: it is configured, or has had one before."""
        return model in (self._rules.models or ()) or self._registry.has_served(model)
