"""YAML as configuration files have it, a mapping of stages in which nothing is said twice; and long lists."""

from typing import Any

import yaml

from extproc.config.fault_message import yaml_message
from extproc.errors import ConfigError

_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError)
"""Errors of PyYAML: for `2026-13-01` or `!!int x` it is whatever the conversion happens to raise."""


_MERGE = "tag:yaml.org,2002:merge"
_MAX_MERGES = 16
_MAX_MERGED_KEYS = 256
"""No stage has as many fields. Without a bound ten lines of merges of merges would fill the memory."""


class _Loader(yaml.SafeLoader):
    """YAML without repeated keys, of which the last would win silently, and with few merges (`<<`).

    The keys that a merge brings are counted here, before PyYAML merges anything: PyYAML 6.0.3 copies a key as
    often as it is merged, PyYAML 6.0.4 copies it once, and both have to accept and refuse the same files.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._keys: dict[yaml.Node, int] = {}
        """The keys of each mapping that is complete, with all that it merges."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is repeated", problem_mark=key.start_mark)
            seen.add(key.value)
        self._keys[node] = self._count_keys(node)
        return node

    def _count_keys(self, node: yaml.MappingNode) -> int:
        values = [value for key, value in node.value if key.tag == _MERGE]
        sources = [value.value if isinstance(value, yaml.SequenceNode) else [value] for value in values]
        mappings = [source for group in sources for source in group if isinstance(source, yaml.MappingNode)]
        # One that is not complete yet is this mapping itself, or one around it: such a merge has no end.
        merged = sum(self._keys.get(mapping, _MAX_MERGED_KEYS + 1) for mapping in mappings)
        keys = len(node.value) - len(values) + merged
        if values and (keys > _MAX_MERGED_KEYS or max(map(len, sources)) > _MAX_MERGES):
            raise yaml.MarkedYAMLError(problem="too much is merged (<<)", problem_mark=node.start_mark)
        return keys


def read_document(text: str, origin: str) -> dict[str, Any]:
    """Return the unchecked stages of YAML text; raises ConfigError where it is no mapping of stages."""
    try:
        document: Any = yaml.load(text, _Loader)
    except _NOT_YAML as error:
        raise ConfigError(f"{origin}: not YAML: {yaml_message(error)}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{origin}: expected a mapping of stages, found {type(document).__name__}")
    return document


class _ListLoader(yaml.CSafeLoader):
    """YAML without merges, which are not counted here. It is faster: libyaml parses, not Python."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse a mapping that merges another."""
        for key, _ in node.value:
            if key.tag == _MERGE:
                raise yaml.MarkedYAMLError(problem="a merge (<<)", problem_mark=key.start_mark)


def read_list_document(text: str, origin: str) -> Any:
    """Return the content of a file that may be long; raises ConfigError where it is no YAML, or merges."""
    try:
        return yaml.load(text, _ListLoader)
    except _NOT_YAML as error:
        raise ConfigError(f"{origin}: not YAML: {yaml_message(error)}") from error
