"""The stage `gateway`: how `extproc picker` serves gateways."""

from typing import Annotated

from annotated_types import Ge, Gt, Le

from extproc.config.fields import Stage

MAX_ENDPOINTS = 16
"""Guessed: a request that fails on this many servers fails because of itself."""


class GatewayConfig(Stage):
    """The messages to and from a gateway, and how long a picker takes to stop."""

    max_endpoints: Annotated[int, Ge(1), Le(MAX_ENDPOINTS)] = 1  # three of six gateways take no list
    ends_after_request: bool = False
    max_body_bytes: Annotated[int, Ge(1 << 10), Le(1 << 30)] = 32 << 20  # as envoy.yaml has it
    drain_s: Annotated[float, Ge(0), Le(3600)] = 30.0  # borrowed from the llm-d router
    finish_s: Annotated[float, Gt(0), Le(3600)] = 90.0  # of its 130 s of grace, what is left and a margin
