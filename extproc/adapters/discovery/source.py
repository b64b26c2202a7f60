"""The interface of all kinds of discovery: an endless series of sets of backends.

A source yields what it has found, again or anew, and nothing as long as it cannot know: what goes wrong is
logged and counted, never raised and never an empty set. What the sets lead to is in `membership`.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from extproc.fleet.endpoint import Endpoint


@dataclass(slots=True)
class DiscoveryCounts:
    """How often discovery was answered, and how often it failed to get a usable answer."""

    answers: int = 0
    failures: int = 0


class BackendSource(Protocol):
    """One kind of discovery."""

    counts: DiscoveryCounts

    def sets(self) -> AsyncGenerator[Sequence[Endpoint], None]:
        """Every set of backends that is found, from the first one on; it never ends."""
