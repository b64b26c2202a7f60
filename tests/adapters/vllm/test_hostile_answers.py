"""A server whose answers are large, finely cut or closed upon: its share of CPU and memory is bounded."""

import asyncio
import gc
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.build import a_core, an_endpoint, core_rules
from support.hostile_metrics import answering, in_chunks, padded, until_closed, whole, with_headers

from extproc.adapters.vllm.asked_server import ScrapeResult
from extproc.adapters.vllm.kept_connection import AnswerTooLargeError, KeptConnection
from extproc.adapters.vllm.scraper import Scraper
from extproc.fleet.signals import ScrapeRule

ATTACK_S = 3.0
MOST_CPU = 0.08
"""Of a core: a hundredth is what one server is given, and a burst of 50 ms comes on top, in three seconds."""


ANSWERS = {
    "chunks of one byte": in_chunks(padded(1 << 20), 1),
    "4 MiB of short headers": with_headers(b"a:b\r\n" * 800_000),
    "a good page in chunks of 50 bytes": in_chunks(padded(1_000_000), 50),
    "a good page of 1 MiB": whole(padded(1 << 20)),
    "a page of 100 MB": whole(padded(100 << 20)),
}


def test_no_answer_costs_more_of_the_core_than_its_share() -> None:
    """Each has a thread of its own, whose CPU time is counted."""

    async def scenario(port: int) -> float:
        core = a_core([an_endpoint(port=port)], core_rules())
        core.fleet.backends[0].running = 1.0  # so that it is asked ten times a second
        scraper = Scraper(ScrapeRule(), core)
        scraper.follow()
        started_s = time.thread_time()
        await asyncio.sleep(ATTACK_S)
        spent_s = time.thread_time() - started_s
        await scraper.stop()
        assert scraper.results
        return spent_s / ATTACK_S

    def share(answer: bytes) -> float:
        with answering(answer) as port:
            return asyncio.run(scenario(port))

    with ThreadPoolExecutor(len(ANSWERS)) as threads:
        shares = dict(zip(ANSWERS, threads.map(share, ANSWERS.values()), strict=True))
    assert max(shares.values()) < MOST_CPU, shares


def test_a_large_answer_that_is_closed_upon_is_not_kept_until_garbage_is_collected() -> None:
    async def asked_again_and_again(port: int) -> int:
        client = KeptConnection("127.0.0.1", port, 5.0, 1 << 20)
        for _ in range(20):
            assert len((await client.get("/metrics")).body) > 900_000
        client.close()
        return tracemalloc.get_traced_memory()[0]

    gc.collect()
    gc.disable()
    try:
        with answering(until_closed(padded(1 << 20)), then_close=True) as port:
            tracemalloc.start()
            assert asyncio.run(asked_again_and_again(port)) < 3 << 20
    finally:
        tracemalloc.stop()
        gc.enable()


def test_an_answer_in_pieces_of_a_byte_is_given_up() -> None:
    async def scenario(port: int) -> None:
        client = KeptConnection("127.0.0.1", port, 5.0, 1 << 20)
        with pytest.raises(AnswerTooLargeError):
            await client.get("/metrics")

    with answering(whole(padded(1 << 20)), piece_bytes=1) as port:
        asyncio.run(scenario(port))


def test_a_server_that_answers_nonsense_is_asked_at_growing_intervals() -> None:
    rule = ScrapeRule(busy_interval_s=0.01, idle_interval_s=0.01)

    async def scenario(port: int) -> None:
        core = a_core([an_endpoint(port=port)], core_rules())
        scraper = Scraper(rule, core)
        scraper.follow()
        await asyncio.sleep(1.0)
        await scraper.stop()
        assert 1 < scraper.results["vllm-1", ScrapeResult.INVALID] <= 8

    with answering(whole(b"nonsense")) as port:
        asyncio.run(scenario(port))
