"""Which backend has which stored response, as far as ids have been heard of.

Envoy reads the id at the beginning of the answer that made it, and the access log brings it here
(`routing.feedback`): before the client has it, or together with it. Other ids are unknown: of those
from before the router has started, or that came by another router. Only where a single backend comes into
question such a request can be placed; anywhere else it would be answered by chance.

Memory is bounded: beyond `max_responses` the oldest are forgotten.
"""

from collections.abc import Sequence, Set

from extproc.fleet.backend import Backend

MAX_RESPONSES = 1 << 16
"""Guessed: 8 MB. A server keeps its own in memory, too."""


class StoredResponses:
    """The backend that has each stored response; `len` is the number of responses."""

    def __init__(self, max_responses: int = MAX_RESPONSES) -> None:
        self._max_responses = max_responses
        self._backends: dict[int, Backend] = {}

    def __len__(self) -> int:
        return len(self._backends)

    def kept(self, response: int, backend: Backend) -> None:
        """Note that a backend has made a response, which it may have kept."""
        self._backends.pop(response, None)
        self._backends[response] = backend
        if len(self._backends) > self._max_responses:
            del self._backends[next(iter(self._backends))]

    def candidates(self, response: int, backends: Sequence[Backend]) -> Sequence[Backend]:
        """Return the one of `backends` that has the response, as far as is known; none where it is not."""
        known = self._backends.get(response)
        if known is None:
            return backends if len(backends) == 1 else ()
        return (known,) if known in backends else ()

    def drop(self, gone: Set[Backend]) -> None:
        """Forget backends that have left."""
        self._backends = {
            response: backend for response, backend in self._backends.items() if backend not in gone
        }
