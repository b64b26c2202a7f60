import asyncio

from support.running_parts import MAX_ACTIVE, Parts

from extproc.adapters.waiting_clock import keep_advancing
from extproc.routing.queue.request_queue import RequestQueue

PATIENCE_S = 10.0
MOST_OF_IT_S = 3.0
"""They have waited so long already, of five seconds."""


def test_the_clock_refuses_at_the_deadline_and_lets_in_who_finds_room_unannounced(
    holding: tuple[Parts, RequestQueue], runner: asyncio.Runner
) -> None:
    parts, room = holding

    async def until(count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while room.waiting != count:
                await asyncio.sleep(0.005)

    async def scenario() -> None:
        for _ in range(2 * MAX_ACTIVE + 2):
            parts.place(now_s=asyncio.get_running_loop().time() - MOST_OF_IT_S)
        clock = asyncio.create_task(keep_advancing(room))
        parts.backend().own -= 1
        await until(1)
        assert room.counts.endings == {"let_in": 1}
        await until(0)
        assert room.counts.endings == {"let_in": 1, "timeout": 1}
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)

    runner.run(scenario())
