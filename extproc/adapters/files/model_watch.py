"""Follows the model file of layer 2: each version is checked in a thread, and swapped in if it is good."""

import asyncio
import logging
from pathlib import Path

from extproc.adapters.files.file_watch import watch_file
from extproc.learning.model_file import MAX_FILE_BYTES
from extproc.learning.model_in_use import read_offer
from extproc.routing.core import Core

logger = logging.getLogger(__name__)


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
