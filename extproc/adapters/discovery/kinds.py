"""The source of the configured kind."""

from extproc.adapters.discovery.dns import DnsSource
from extproc.adapters.discovery.source import BackendSource
from extproc.adapters.discovery.static_list import StaticList
from extproc.config import rules
from extproc.config.discovery_stage import DnsDiscovery, KubernetesDiscovery
from extproc.config.stages import Config
from extproc.errors import ConfigError


def new_source(config: Config) -> BackendSource:
    """Raises ConfigError where the kind needs a package that is not installed."""
    discovery = config.discovery
    if isinstance(discovery, DnsDiscovery):
        return DnsSource(discovery)
    if isinstance(discovery, KubernetesDiscovery):
        return _kubernetes(discovery)
    return StaticList(rules.backends(config))


def _kubernetes(discovery: KubernetesDiscovery) -> BackendSource:
    try:
        from extproc.adapters.discovery.kubernetes import (  # noqa: PLC0415 - an optional dependency
            KubernetesSource,
        )
    except ImportError as error:
        raise ConfigError("discovery by kubernetes: pip install 'vllm-extproc[kubernetes]'") from error
    return KubernetesSource(discovery)
