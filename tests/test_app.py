import asyncio

from support.running_parts import MAX_ACTIVE, Parts

from extproc.app import keep_advancing
from extproc.routing.queue.request_queue import QueueRules, RequestQueue

PATIENCE_S = 10.0
MOST_OF_IT_S = 3.0
"""They have waited so long already, of five seconds."""


def test_the_clock_refuses_at_the_deadline_and_lets_in_who_finds_room_unannounced() -> None:
    async def until(room: RequestQueue, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while room.waiting != count:
                await asyncio.sleep(0.005)

    async def scenario() -> None:
        parts = Parts(queue=QueueRules(3, 5.0, 0, 0))
        room = parts.core.queue
        assert room is not None
        for _ in range(2 * MAX_ACTIVE + 2):
            parts.place(now_s=asyncio.get_running_loop().time() - MOST_OF_IT_S)
        clock = asyncio.create_task(keep_advancing(room))
        parts.backend().own -= 1
        await until(room, 1)
        assert room.counts.endings == {"let_in": 1}
        await until(room, 0)
        assert room.counts.endings == {"let_in": 1, "timeout": 1}
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)

    asyncio.run(scenario())
