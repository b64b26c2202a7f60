"""Backends that are given elsewhere than in the file of the configuration, as on a command line."""

from collections.abc import Iterable, Mapping
from typing import Any

_SOURCES = frozenset({"backends", "discovery"})
"""Each of them says where backends come from: with one given, neither of the file's counts."""


def numbered_servers(urls: str) -> list[tuple[str, str]]:
    """Return names and URLs of a list as options have it, `URL,URL`; the URLs are not yet checked."""
    listed = [url.strip() for url in urls.split(",") if url.strip()]
    return [(f"vllm-{number}", url) for number, url in enumerate(listed, start=1)]


def with_sources(document: Mapping[str, Any], stages: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stages of a text with these in place of those that say where backends come from.

    In a discovery of the same kind, the fields that are not given stay.
    """
    others = {name: stage for name, stage in document.items() if name not in _SOURCES}
    discovery, known = stages.get("discovery"), document.get("discovery")
    if discovery and isinstance(known, dict) and known.get("kind") == discovery["kind"]:
        stages = {**stages, "discovery": {**known, **discovery}}
    return {**others, **stages}


def listed(backends: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the stage `backends` of these names and URLs."""
    return {"backends": [{"name": name, "url": url} for name, url in backends]}
