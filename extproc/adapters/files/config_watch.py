"""Follows the file of the configuration: its list of backends may change, all else needs a restart."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from extproc.adapters.discovery.source import BackendSource, StaticList
from extproc.adapters.files.file_watch import watch_file
from extproc.config import rules
from extproc.config.stages import MAX_CONFIG_BYTES, Config, parse_config
from extproc.errors import ConfigError

logger = logging.getLogger(__name__)


class ConfigWatch:
    """Gives each new list to a static `source`; `accepted` returns a configuration as it counts here."""

    def __init__(
        self, path: Path, config: Config, source: BackendSource, accepted: Callable[[Config], Config]
    ) -> None:
        self._path = path
        self._config = config
        self._source = source
        self._accepted = accepted

    async def follow(self) -> None:
        """Take over every change that can be; a file with a fault is refused whole."""
        async for content in watch_file(self._path, MAX_CONFIG_BYTES + 1):
            if content is not None and len(content) > MAX_CONFIG_BYTES:
                logger.error("config_refused error=more than %d bytes", MAX_CONFIG_BYTES)
                continue
            try:
                text = (content or b"").decode()
                config = self._accepted(await asyncio.to_thread(parse_config, text, str(self._path)))
            except (ConfigError, UnicodeDecodeError) as error:
                logger.error("config_refused error=%s", error)
            else:
                if config != self._config:
                    self._apply(config)

    def _apply(self, config: Config) -> None:
        stages = [
            name for name in Config.model_fields if getattr(config, name) != getattr(self._config, name)
        ]
        if changed := [name for name in stages if name != "backends"]:
            logger.warning("config_needs_restart stages=%s", ",".join(changed))
        self._config = config
        if isinstance(self._source, StaticList) and config.backends:
            self._source.replace(rules.backends(config))
        logger.info("config_applied backends=%d", len(config.backends))
