"""The stage `tracing`: whether decisions are traced, where the spans go, and how many are made."""

from typing import Annotated
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, Field

from extproc.config.fields import Stage


def _checked_endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("expected a URL such as http://otel-collector:4318/v1/traces")
    return url


class TracingConfig(Stage):
    """Spans by OTLP over HTTP; without an endpoint no request is traced."""

    endpoint: Annotated[str, AfterValidator(_checked_endpoint)] | None = None
    sample_share: Annotated[float, Ge(0), Le(1)] = 0.01  # guessed; a client's own traces are not among these
    max_spans_per_s: Annotated[float, Gt(0), Le(10_000)] = 100.0  # measured: 4 % of a core
    service_name: Annotated[str, Field(min_length=1, max_length=256)] = "extproc"
