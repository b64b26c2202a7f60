"""The files that a sidecar follows while it runs: its configuration, and the model file of layer 2."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from extproc.adapters.discovery.source import BackendSource, StaticList
from extproc.adapters.files.file_watch import watch_file
from extproc.config import rules
from extproc.config.stages import MAX_CONFIG_BYTES, Config, parse_config
from extproc.errors import ConfigError
from extproc.learning.model_file import MAX_FILE_BYTES
from extproc.learning.model_in_use import read_offer
from extproc.routing.core import Core

logger = logging.getLogger("extproc.app")  # lines about the whole process


class ConfigWatch:
    """Gives each new list of backends to a static `source`; what else has changed needs a restart.

    `accepted` returns a configuration as it counts here.
    """

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
                logger.error("config_refused error=%s", "; ".join(map(str.strip, str(error).splitlines())))
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


async def follow_model(path: Path, core: Core) -> None:
    """Have the core use what the file holds; it never ends."""
    in_use = core.model
    async for content in watch_file(path, MAX_FILE_BYTES + 1):
        if content is None:
            logger.info("model_absent path=%s in_use=%s", path, in_use.current is not None)
            continue
        refused = in_use.refused
        is_new = core.use_model(await asyncio.to_thread(read_offer, content))
        if in_use.refused > refused:
            logger.error("model_refused path=%s reason=%s", path, in_use.last_refusal)
        elif is_new and in_use.current is not None:
            version = in_use.current.manifest.model_version
            logger.info("model_accepted path=%s version=%s", path, version)
