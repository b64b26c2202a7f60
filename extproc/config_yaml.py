"""YAML as configuration files have it: a mapping of stages, in which nothing is said twice."""

from typing import Any

import yaml

from extproc.errors import ConfigError

_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError)
"""What PyYAML raises: for `2026-13-01` or `!!int x` it is whatever the conversion happens to raise."""


class _Loader(yaml.SafeLoader):
    """YAML without repeated keys, of which the last would win silently."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is repeated", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def read_document(text: str, origin: str) -> dict[str, Any]:
    """The stages that YAML text has, not checked; raises ConfigError where it is no mapping of stages."""
    try:
        document: Any = yaml.load(text, _Loader)
    except _NOT_YAML as error:
        raise ConfigError(f"{origin}: not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{origin}: expected a mapping of stages, found {type(document).__name__}")
    return document
