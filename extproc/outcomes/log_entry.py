"""What Envoy's access log says of one finished HTTP exchange, without its wire format.

Envoy measured it, and gives back the decision's metadata with it: together with nothing else this is what an
outcome, and then a sample, is made of
(https://www.envoyproxy.io/docs/envoy/latest/api-v3/data/accesslog/v3/accesslog.proto).
"""

from collections.abc import Mapping

import msgspec


class LogEntry(msgspec.Struct, frozen=True):
    """One exchange, from its first byte to its end, however it ended.

    `started_at_s` is a unix timestamp; `duration_s` is None if Envoy gave none; `status` is 0 if the client
    got none; `attempts` counts the backends tried, at least 1. `response_flags` are Envoy's short names
    ("UF": connecting upstream failed, "DC": the client left, ...). `metadata` is what the decision attached,
    empty if extproc was not asked; `tags` are the access log's custom tags.
    """

    started_at_s: float
    duration_s: float | None
    status: int
    attempts: int
    response_flags: frozenset[str]
    response_body_bytes: int
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
