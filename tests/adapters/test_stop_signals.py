import asyncio
import signal
from collections.abc import Iterator

import pytest

from extproc.adapters.stop_signals import StopSignals, stop_event

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def hang_up_is_not_ignored() -> Iterator[None]:
    """It is where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_a_request_and_no_interruption(number: signal.Signals) -> None:
    with StopSignals() as signals:
        assert not signals.is_requested
        signal.raise_signal(number)
        assert signals.is_requested
        signal.raise_signal(number)


def test_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_ignored_hang_up_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert not signals.is_requested
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_an_event_loop_a_signal_sets_an_event(number: signal.Signals) -> None:
    async def scenario() -> None:
        with stop_event() as stop:
            assert not stop.is_set()
            signal.raise_signal(number)
            async with asyncio.timeout(10):
                await stop.wait()

    asyncio.run(scenario())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
