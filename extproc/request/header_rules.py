"""Which of a request's headers are read, and how: part of what is configured."""

from dataclasses import dataclass, field

from extproc.request.objectives import InferenceObjectives
from extproc.request.session import SESSION_HEADERS
from extproc.request.slo import SloRule


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


USUAL = HeaderRules()
