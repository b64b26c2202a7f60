"""All that reads bytes from outside, by name, and the inputs that are kept of it."""

from collections.abc import Callable
from pathlib import Path

from fuzz import (
    from_backends,
    from_clients,
    from_envoy,
    from_gateways,
    from_kubernetes,
    from_operators,
    from_sidecars,
)

Target = Callable[[bytes], None]
"""Reads any bytes; raises AssertionError, or what the code under test should not, where there is a fault."""

TARGETS: dict[str, Target] = {
    "body": from_clients.body,
    "form": from_clients.form,
    "content": from_clients.content,
    "request": from_clients.request,
    "ext_proc": from_clients.ext_proc,
    "exchange": from_envoy.exchange,
    "gateway": from_gateways.gateway,
    "access_log": from_envoy.access_log,
    "facts": from_envoy.facts,
    "exposition": from_backends.exposition,
    "scrape": from_backends.scrape,
    "models": from_backends.models,
    "watch": from_kubernetes.watch,
    "slices": from_kubernetes.slices,
    "pool": from_kubernetes.pool,
    "pool_rules": from_kubernetes.pool_rules,
    "dns_answer": from_kubernetes.dns_answer,
    "model_file": from_operators.model_file,
    "trees": from_operators.trees,
    "config": from_operators.config,
    "cluster_file": from_operators.cluster_file,
    "endpoints_file": from_operators.endpoints_file,
    "reports": from_sidecars.reports,
    "sample_rows": from_sidecars.sample_rows,
}
CORPUS = Path(__file__).parent / "corpus"


def kept_inputs(target: str) -> list[Path]:
    """The corpus of a target: each of its inputs takes a way through the code that no other one takes."""
    return sorted((CORPUS / target).iterdir())
