"""Which of a request's headers are read, and how: part of what is configured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from extproc.request.content import PACKED_HEADER
from extproc.request.objectives import OBJECTIVE_HEADERS, InferenceObjectives
from extproc.request.session import SESSION_HEADERS
from extproc.request.slo import SLO_HEADERS, SloRule

PRIORITY_HEADER: Final = "x-extproc-priority"


@dataclass(frozen=True, slots=True)
class HeaderRules:
    """`tenant_header` names the header with the tenant; without one all requests are of one tenant.

    The first of `session_headers` that a request has tells its session. `objectives` may be replaced while
    the rules are in use. Where it `is_traced` a client's trace is read.
    """

    tenant_header: str | None = None
    slo: SloRule = field(default_factory=SloRule)
    session_headers: tuple[str, ...] = SESSION_HEADERS
    objectives: InferenceObjectives = field(default_factory=InferenceObjectives)
    is_traced: bool = False
    _special: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = {PRIORITY_HEADER, PACKED_HEADER, *OBJECTIVE_HEADERS, *SLO_HEADERS, *self.session_headers}
        object.__setattr__(self, "_special", frozenset(names))

    def are_plain(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request has no header for priority, limit of the wait, session or packed body."""
        return self._special.isdisjoint(headers)


USUAL = HeaderRules()
