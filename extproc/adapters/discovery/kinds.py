"""The kinds of discovery, by their names in the configuration (`discovery.kind`), and the source of each."""

from collections.abc import Callable, Mapping
from typing import Any

from extproc.adapters.discovery.source import BackendSource, StaticList
from extproc.config import rules
from extproc.config.discovery_stage import DnsDiscovery, KubernetesDiscovery
from extproc.config.stages import Config
from extproc.errors import ConfigError


def new_source(config: Config) -> BackendSource:
    """Make the source of the configured kind.

    Raises ConfigError where the kind needs a package that is not installed.
    """
    if config.discovery.kind == "static":
        return StaticList(rules.backends(config))
    return _SOURCES[config.discovery.kind](config.discovery)


def _dns(discovery: DnsDiscovery) -> BackendSource:
    from extproc.adapters.discovery.dns import (  # noqa: PLC0415 - dnspython takes a third of a start to load
        DnsSource,
    )

    return DnsSource(discovery)


def _kubernetes(discovery: KubernetesDiscovery) -> BackendSource:
    try:
        from extproc.adapters.discovery.kubernetes import (  # noqa: PLC0415 - an optional dependency
            KubernetesSource,
        )
    except ImportError as error:
        raise ConfigError("discovery by kubernetes: pip install 'vllm-extproc[kubernetes]'") from error
    return KubernetesSource(discovery)


_SOURCES: Mapping[str, Callable[[Any], BackendSource]] = {
    "dns": _dns,
    "kubernetes": _kubernetes,
}
"""By kind; each is called with its own stage."""
