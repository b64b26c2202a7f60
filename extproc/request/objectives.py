"""The priority of a request by the objective that its client names, as in llm-d.

An `InferenceObjective` is an object that the operator of an InferencePool makes: a name and a priority, any
whole number. A client names one in a header; an unknown name counts as none. Where the two headers differ,
the newer one counts.

The queue has few levels, so numbers become ranks: the smallest positive priority is 1, the next 2, and the
largest negative one is -1. Their order stays, and 0 stays 0.
"""

from collections.abc import Iterable, Mapping
from typing import Final

OBJECTIVE_HEADERS: Final = ("x-llm-d-inference-objective", "x-gateway-inference-objective")


class InferenceObjectives:
    """The objectives in force; `replace` puts others in their place."""

    def __init__(self) -> None:
        self._ranks: Mapping[str, int] = {}

    def replace(self, priorities: Mapping[str, int]) -> None:
        """Take these objectives, by name."""
        ranks = _ranks(priorities.values())
        self._ranks = {name: ranks[priority] for name, priority in priorities.items()}

    def rank(self, headers: Mapping[str, str]) -> int | None:
        """Return the rank of the request's objective; None where it names none that there is."""
        if not self._ranks:
            return None
        name = next((headers[header] for header in OBJECTIVE_HEADERS if header in headers), "")
        return self._ranks.get(name)


def _ranks(priorities: Iterable[int]) -> dict[int, int]:
    distinct = sorted({0, *priorities})
    zero = distinct.index(0)
    return {priority: place - zero for place, priority in enumerate(distinct)}
