"""Asks all servers for their models where a request wants one that none is known to serve: in rounds, paced.

A round ends when all servers have answered, or after `ROUND_S`: what is not found by then is refused.
"""

import asyncio
import time

from extproc.adapters.vllm.scraper import Scraper
from extproc.routing.model_search import ModelSearch

ROUND_S = 2.0
"""Guessed: twice the patience for a scrape; the others have answered within milliseconds."""

PAUSE_S = 1.0
"""Guessed: from the beginning of one round to the next, at the least: what clients can have servers asked."""


async def follow_searches(search: ModelSearch, scraper: Scraper, round_s: float = ROUND_S) -> None:
    """Hold requests for unknown models from now on, and have servers asked whenever there are some."""
    wanted = asyncio.Event()
    search.handle_wanted = wanted.set
    try:
        while True:
            await wanted.wait()
            wanted.clear()
            begun_s = time.monotonic()
            search.begin()
            await _ask(search, scraper, begun_s + round_s)
            search.end(time.monotonic())
            await asyncio.sleep(begun_s + PAUSE_S - time.monotonic())
    finally:
        search.handle_wanted = None
        search.begin()
        search.end(time.monotonic())


async def _ask(search: ModelSearch, scraper: Scraper, until_s: float) -> None:
    asked: set[asyncio.Future[None]] = set(scraper.want_models())
    while asked and (left_s := until_s - time.monotonic()) > 0:
        answered, asked = await asyncio.wait(asked, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if answered:
            search.listed(time.monotonic())
