"""What a backend answers: its metrics, its list of models, and the bytes of HTTP around them."""

import asyncio
import time
from functools import cache

from fuzz.sidecar_parts import parts

from extproc.adapters.vllm.exposition import read_signals
from extproc.adapters.vllm.kept_connection import MAX_HEAD_BYTES, HttpAnswer, _Connection
from extproc.adapters.vllm.served_models import MAX_MODELS, MAX_NAME, read_models
from extproc.adapters.vllm.wanted_lines import WantedLines

MAX_BODY_BYTES = 1000
READ = b"~~"
"""Where one read of the socket ends and the next begins."""


def exposition(data: bytes) -> None:
    """Text of `/metrics`, and what the fleet makes of it, on top of all that it has been told before."""
    signals = read_signals(data)
    remembered = WantedLines()
    assert all(remembered.read(data) == signals for _ in range(2))
    if signals is None:
        return
    sidecar = parts()
    sidecar.core.scraped(sidecar.backends[0], signals, own_when_asked=0, now_s=time.monotonic())
    sidecar.check()
    totals = (signals.prompt_tokens_total, signals.generation_tokens_total)
    assert all(total is None or 0 <= total < float("inf") for total in totals), totals


def models(data: bytes) -> None:
    """The answer of `/v1/models`."""
    found = read_models(data)
    if found is None:
        return
    names = found.names
    assert 0 < len(names) <= MAX_MODELS
    assert all(len(name) <= MAX_NAME for name in names)
    registry, backend = parts().core.registry, parts().backends[2]
    registry.learn_models(backend, names, found.bases)
    assert all(backend in (registry.candidates(name) or ()) for name in names)


class Socket:
    """A transport that takes everything and says when it is given up."""

    def __init__(self) -> None:
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        """The request."""

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


def scrape(data: bytes) -> None:
    """What a server sends on one connection, in any number of reads, before it hangs up."""
    _loop().run_until_complete(_scrape(data.split(READ)))


async def _scrape(reads: list[bytes]) -> None:
    socket = Socket()
    exchange = _Connection(MAX_BODY_BYTES)
    exchange.connection_made(socket)  # type: ignore[arg-type]  # all that is used
    asking = asyncio.ensure_future(exchange.ask(b"GET / HTTP/1.1\r\n\r\n"))
    await asyncio.sleep(0)
    for read in reads:
        if not socket.is_aborted:
            exchange.data_received(read)
        assert len(exchange._body) <= MAX_BODY_BYTES + len(read)
        assert exchange.received_bytes <= MAX_HEAD_BYTES + 2 * MAX_BODY_BYTES + len(read)
    exchange.connection_lost(None)
    await asyncio.sleep(0)
    await asyncio.wait([asking])
    error = asking.exception()
    if error is not None:
        assert isinstance(error, OSError), repr(error)
        return
    answer = asking.result()
    assert isinstance(answer, HttpAnswer)
    assert len(answer.body) <= MAX_BODY_BYTES
    assert 0 <= answer.status < 1000


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()
