"""`/metrics` says nonsense, nothing, or a lie: the backend goes on serving, and nobody else is harmed."""

import asyncio

import pytest
from support.fault_drill import Drill, resident_bytes, scripted, until_placed
from support.fault_table import FaultTable
from support.process_stack import LocalStack
from support.scripted_backend import PAGE, Behaviour, flood, never_answer, page

RUNNING = b'vllm:num_requests_running{engine="0"} '
PAGES: dict[str, Behaviour] = {
    "`/metrics`: garbage": page(bytes(range(256)) * 100),
    "`/metrics`: an HTML page": page(b"<html><body>It works!</body></html>", content_type="text/html"),
    "`/metrics`: status 500": page(b"Internal Server Error", status="500 Internal Server Error"),
    "`/metrics`: truncated": page(PAGE[:60]),
    "`/metrics`: NaN": page(PAGE.replace(RUNNING + b"0.0", RUNNING + b"NaN")),
    "`/metrics`: negative numbers": page(PAGE.replace(RUNNING + b"0.0", RUNNING + b"-7")),
    "`/metrics`: huge numbers": page(PAGE.replace(RUNNING + b"0.0", RUNNING + b"1e300")),
    "`/metrics`: nothing": page(b""),
    "`/metrics`: 100 MB": flood,
    "`/metrics`: hanging": never_answer,
}
MAX_GROWTH_BYTES = 60 << 20


@pytest.mark.fault
def test_a_page_that_cannot_be_read_leaves_the_backend_in_use(stack: LocalStack, table: FaultTable) -> None:
    async def scenario() -> None:
        async with scripted(stack) as (odd, _):
            assert stack.sidecar.pid is not None
            before_bytes = resident_bytes(stack.sidecar.pid)
            for fault, behaviour in PAGES.items():
                async with Drill(stack, table, fault) as load:
                    await load.until(8)
                    odd.on_scrape = behaviour
                    await stack.until(lambda state: state["backends"][0]["scrape_age_s"] > 2.0)
                    await until_placed(load, ("vllm-1", "vllm-2"))
                    odd.on_scrape = page(PAGE)
                    with load.recovering():
                        await stack.until(lambda state: state["backends"][0]["scrape_age_s"] < 1.0)
                    await load.until(8)
            assert resident_bytes(stack.sidecar.pid) - before_bytes < MAX_GROWTH_BYTES

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_backend_that_claims_to_be_idle_gets_no_more_than_its_share(
    stack: LocalStack, table: FaultTable
) -> None:
    """Both say that nothing runs, but one does nothing else."""

    async def scenario() -> None:
        async with scripted(stack) as (liar, honest):
            async with Drill(stack, table, "backend says running = 0 for ever") as load:
                await load.until(200)
            assert abs(liar.requests - honest.requests) < 0.2 * len(load.answers)

    asyncio.run(scenario())
