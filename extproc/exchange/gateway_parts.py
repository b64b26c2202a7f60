"""The parts of a picker that all exchanges behind a gateway share."""

from collections.abc import Callable
from dataclasses import dataclass

from extproc.exchange.placement import Lease, Placer
from extproc.exchange.request_body import CollectedBytes
from extproc.request.header_rules import HeaderRules
from extproc.request.token_ratio import TokenRatios

ServedElsewhere = Callable[[Lease, str, float], bool]
"""Books a request on the server at an address, which has served it; False where there is no such one."""


@dataclass(frozen=True, slots=True)
class GatewayParts:
    """The parts that all exchanges of one server share; `rewrite` gives a body the model it is to have."""

    place: Placer
    served_elsewhere: ServedElsewhere
    ratios: TokenRatios
    rules: HeaderRules
    collected: CollectedBytes
    ends_after_request: bool = False
    rewrite: Callable[[bytes], bytes] = bytes
