"""The kinds of discovery, by their names in the configuration (`discovery.kind`), and the source of each."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from extproc.adapters.discovery.llm_d_file import LlmdFileSource
from extproc.adapters.discovery.source import BackendSource, StaticList
from extproc.config import rules
from extproc.config.discovery_stage import DnsDiscovery, InferencePoolDiscovery, KubernetesDiscovery
from extproc.config.stages import Config
from extproc.errors import ConfigError
from extproc.request.model_rewrite import ModelRewrites
from extproc.request.objectives import InferenceObjectives

if TYPE_CHECKING:
    from extproc.adapters.discovery.pool_rules import PoolRules


def new_source(config: Config) -> BackendSource:
    """Make the source of the configured kind.

    Raises ConfigError where the kind needs a package that is not installed.
    """
    if config.discovery.kind == "static":
        return StaticList(rules.backends(config))
    return _SOURCES[config.discovery.kind](config.discovery)


def new_pool_rules(
    config: Config, objectives: InferenceObjectives, rewrites: ModelRewrites
) -> "PoolRules | None":
    """Return what keeps these in force, where backends come from an InferencePool."""
    if not isinstance(config.discovery, InferencePoolDiscovery):
        return None
    from extproc.adapters.discovery.pool_rules import PoolRules  # noqa: PLC0415 - an optional dependency

    return PoolRules(config.discovery, objectives, rewrites)


def _dns(discovery: DnsDiscovery) -> BackendSource:
    from extproc.adapters.discovery.dns import (  # noqa: PLC0415 - dnspython takes a third of a start to load
        DnsSource,
    )

    return DnsSource(discovery)


def _kubernetes(discovery: KubernetesDiscovery | InferencePoolDiscovery) -> BackendSource:
    try:
        from extproc.adapters.discovery import (  # noqa: PLC0415 - an optional dependency
            inference_pool,
            kubernetes,
        )
    except ImportError as error:
        raise ConfigError(
            f"{discovery.kind} needs a package: pip install 'vllm-extproc[kubernetes]'"
        ) from error
    if isinstance(discovery, KubernetesDiscovery):
        return kubernetes.KubernetesSource(discovery)
    return inference_pool.InferencePoolSource(discovery)


_SOURCES: Mapping[str, Callable[[Any], BackendSource]] = {
    "dns": _dns,
    "kubernetes": _kubernetes,
    "inference_pool": _kubernetes,
    "llm_d_file": LlmdFileSource,
}
"""By kind; each is called with its own stage."""
