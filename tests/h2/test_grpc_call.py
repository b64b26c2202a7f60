"""The bytes of unfinished messages: bounded over all calls, and given back however a call ends."""

from typing import Any

import pytest

from extproc.errors import ProtocolError
from extproc.h2.connection import ServerConnection
from extproc.h2.grpc_call import Call, Handler, UnfinishedMessages
from extproc.h2.grpc_wire import Status, prefixed

MESSAGE = prefixed(bytes(1000))


class Taken(Handler):
    """Keeps what it is given."""

    def __init__(self, _: Call) -> None:
        self.messages: list[bytes] = []

    def receive(self, message: bytes) -> None:
        self.messages.append(message)


@pytest.fixture
def refused() -> list[ProtocolError]:
    return []


@pytest.fixture
def unfinished(refused: list[ProtocolError]) -> UnfinishedMessages:
    return UnfinishedMessages(2500, refused.append)


def calls(unfinished: UnfinishedMessages, count: int) -> list[Call]:
    connection, opened = ServerConnection(), dict[int, Call]()
    return [Call(connection, 2 * n + 1, opened, 2000, unfinished, Taken) for n in range(count)]


def test_a_message_that_came_whole_or_has_ended_holds_nothing(unfinished: UnfinishedMessages) -> None:
    (call,) = calls(unfinished, 1)
    call.receive(MESSAGE, False)
    assert (unfinished.total_bytes, unfinished.by_call) == (0, {})
    call.receive(MESSAGE[:400], False)
    assert unfinished.total_bytes == 400
    call.receive(MESSAGE[400:] + MESSAGE[:10], False)
    assert unfinished.total_bytes == 10
    call.receive(MESSAGE[10:], True)
    assert (unfinished.total_bytes, unfinished.by_call) == (0, {})


@pytest.mark.parametrize("end", [lambda call: call.end(), lambda call: call.finish(Status.OK)])
def test_a_call_that_ends_within_a_message_gives_it_back(unfinished: UnfinishedMessages, end: Any) -> None:
    (call,) = calls(unfinished, 1)
    call.receive(MESSAGE[:400], False)
    end(call)
    assert (unfinished.total_bytes, unfinished.by_call) == (0, {})


def test_beyond_the_bound_the_call_that_holds_the_most_is_ended(
    unfinished: UnfinishedMessages, refused: list[ProtocolError]
) -> None:
    small, large, newest = calls(unfinished, 3)
    small.receive(MESSAGE[:900], False)
    large.receive(MESSAGE[:1000], False)
    newest.receive(MESSAGE[:700], False)
    assert (small.is_over, large.is_over, newest.is_over) == (False, True, False)
    assert unfinished.total_bytes == 1600
    assert len(refused) == 1


def test_the_newest_call_may_itself_be_the_largest(unfinished: UnfinishedMessages) -> None:
    small, newest = calls(unfinished, 2)
    small.receive(MESSAGE[:900], False)
    newest.receive(prefixed(bytes(2000))[:1700], False)
    assert newest.is_over
    newest.receive(MESSAGE, True)
    assert unfinished.total_bytes == 900
