import asyncio

from extproc.adapters.envoy.log_queue import AT_ONCE, MAX_WAITING_BYTES, LogQueue
from extproc.outcomes.outcome import LogEntry


def entries(first: int, count: int) -> list[LogEntry]:
    return [LogEntry(float(n), None, 200, 1, frozenset(), 0, {}, {}) for n in range(first, first + count)]


def test_entries_of_a_message_are_handled_in_their_order_and_over_several_turns_of_the_loop() -> None:
    handled: list[LogEntry] = []

    async def scenario() -> None:
        queue = LogQueue(handled.extend)
        queue.add(iter(entries(0, 2 * AT_ONCE + 1)), 1)
        queue.add(iter(entries(2 * AT_ONCE + 1, 2)), 1)
        seen = {len(handled)}
        while len(handled) < 2 * AT_ONCE + 3:
            await asyncio.sleep(0)
            seen.add(len(handled))
        assert sorted(seen) == [AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 1, 2 * AT_ONCE + 3]

    asyncio.run(scenario())
    assert handled == entries(0, 2 * AT_ONCE + 3)


def test_where_too_much_waits_all_of_it_is_handled_at_once() -> None:
    handled: list[LogEntry] = []

    async def scenario() -> None:
        queue = LogQueue(handled.extend)
        queue.add(iter(entries(0, 5 * AT_ONCE)), MAX_WAITING_BYTES)
        assert len(handled) == AT_ONCE
        queue.add(iter(entries(5 * AT_ONCE, 1)), 1)
        assert len(handled) == 5 * AT_ONCE + 1

    asyncio.run(scenario())


def test_at_the_end_all_that_waits_is_handled() -> None:
    handled: list[LogEntry] = []

    async def scenario() -> None:
        queue = LogQueue(handled.extend)
        queue.add(iter(entries(0, 3 * AT_ONCE)), 1)
        queue.handle_all()
        assert len(handled) == 3 * AT_ONCE
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert len(handled) == 3 * AT_ONCE
