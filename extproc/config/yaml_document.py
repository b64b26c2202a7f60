"""YAML as configuration files have it: a mapping of stages, in which nothing is said twice."""

from typing import Any

import yaml

from extproc.errors import ConfigError

_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError)
"""What PyYAML raises: for `2026-13-01` or `!!int x` it is whatever the conversion happens to raise."""


_MERGE = "tag:yaml.org,2002:merge"
_MAX_MERGES = 16
_MAX_MERGED_KEYS = 256
"""No stage has as many fields. Without a bound ten lines of merges of merges would fill the memory."""


class _Loader(yaml.SafeLoader):
    """YAML without repeated keys, of which the last would win silently, and with few merges (`<<`)."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is repeated", problem_mark=key.start_mark)
            seen.add(key.value)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        merged = [value for key, value in node.value if key.tag == _MERGE]
        lists = [value for value in merged if isinstance(value, yaml.SequenceNode)]
        if all(len(value.value) <= _MAX_MERGES for value in lists):
            super().flatten_mapping(node)
            if not merged or len(node.value) <= _MAX_MERGED_KEYS:
                return
        raise yaml.MarkedYAMLError(problem="too much is merged (<<)", problem_mark=node.start_mark)


def read_document(text: str, origin: str) -> dict[str, Any]:
    """The stages that YAML text has, not checked; raises ConfigError where it is no mapping of stages."""
    try:
        document: Any = yaml.load(text, _Loader)
    except _NOT_YAML as error:
        raise ConfigError(f"{origin}: not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{origin}: expected a mapping of stages, found {type(document).__name__}")
    return document
