"""The sidecar whose instructions are counted: without sockets, whole and in parts, on bytes of Envoy's.

Each count lies between two calls of `getppid`, at which callgrind writes down what it has counted since the
call before: see `__main__`.
"""

import asyncio
import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.instructions import envoy_bytes
from benchmarks.instructions.envoy_bytes import IN_FLIGHT
from benchmarks.overhead.arms import EVERY_REQUEST_S, SHIPPED_MODEL
from benchmarks.overhead.empty_server import MAX_MESSAGE_BYTES
from benchmarks.overhead.thin_empty_server import empty_service
from extproc.adapters.envoy.access_log_wire import decode_entries
from extproc.adapters.envoy.ext_proc_wire import decode, encode
from extproc.adapters.envoy.thin_server import ThinServer
from extproc.adapters.files.sample_store import SampleStore
from extproc.adapters.protos import ext_proc_pb2
from extproc.config.rules import backends, core_rules, header_rules
from extproc.config.stages import Config, ServerConfig
from extproc.exchange.exchange import Exchange
from extproc.exchange.messages import BodyReceived, HeadersReceived, Phase
from extproc.exchange.placement import Placement
from extproc.fleet.signals import Signals
from extproc.h2.grpc_call import UnfinishedMessages
from extproc.h2.grpc_connection import GrpcConnection, GrpcService
from extproc.learning.model_in_use import read_offer
from extproc.outcomes.outcome import LogEntry, Outcome
from extproc.request.request import read_request
from extproc.routing.core import Core

REQUESTS = 600
_WARM_UP = 120
_BACKENDS = 16
CHUNKS = 8

counts: list[str] = []
"""The names of what was counted, in order."""


@contextmanager
def counted(name: str) -> Iterator[None]:
    """Have callgrind count by itself what runs here."""
    counts.append(name)
    os.getppid()
    yield
    os.getppid()


class Scene:
    """A core with 16 backends, and the service before it; scrapes stay fresh, however slow it runs."""

    def __init__(self, *, asks_model: bool = False) -> None:
        stages: dict[str, object] = {"zones": {"low_s": EVERY_REQUEST_S}} if asks_model else {}
        listed = [{"name": f"vllm-{n}", "url": f"http://127.0.0.1:{8000 + n}"} for n in range(_BACKENDS)]
        self._config = Config.model_validate(
            {"backends": listed, "scrape": {"stale_after_s": 600.0}, **stages}
        )
        self.core = core = Core(core_rules(self._config), np.random.default_rng(1), 1 << 40)
        core.set_members(backends(self._config), -1e6)
        core.advance(time.monotonic())
        if asks_model:
            core.use_model(read_offer(SHIPPED_MODEL.read_bytes()))
        for backend in core.fleet.backends:
            core.learn_models(backend, frozenset({"bench"}), {})
            core.scraped(backend, Signals(0.0, 0.0, 0.3, None, None), 0, time.monotonic())

    def connection(self) -> "Connection":
        """Return a connection of Envoy's to a server before the core."""
        core = self.core
        rules = header_rules(self._config)
        new_exchange = partial(Exchange, core.place, core.ratios, rules, core.bodies)

        def handle(entries: Iterable[LogEntry]) -> None:
            self.learn(entries)

        server = ThinServer(ServerConfig(), new_exchange, handle)
        unfinished = UnfinishedMessages(8 * MAX_MESSAGE_BYTES, print)
        service = GrpcService(server.methods(), MAX_MESSAGE_BYTES, unfinished, print)
        return Connection(service, server.log.handle_all)

    def learn(self, entries: Iterable[LogEntry]) -> list[Outcome | None]:
        """Learn from entries of the access log."""
        return [self.core.learn(entry, time.monotonic()) for entry in entries]


class Connection:
    """One of Envoy's connections, by its bytes alone."""

    def __init__(self, service: GrpcService, handle_log: Callable[[], None]) -> None:
        self._grpc = GrpcConnection(service, _no_deadline)
        self._handle_log = handle_log  # what the event loop would do in its next turns
        self._next_stream = envoy_bytes.FIRST_STREAM
        self.take([envoy_bytes.opening()])

    def take(self, reads: Iterable[bytes]) -> bytes:
        """Receive some reads, and return what is answered."""
        sent = []
        for read in reads:
            self._grpc.receive(read, time.monotonic())
            while self._grpc.handle_some():
                pass
            self._handle_log()
            sent.append(self._grpc.data_to_send())
        return b"".join(sent)

    def serve(self, name: str, chunks: int, entries: list[bytes] | None = None) -> None:
        """Count the requests of this name, and then their access log: `entries`, or that of the answers."""
        self._serve(f"warm-up of {name}", _WARM_UP, chunks, entries)
        self._serve(name, REQUESTS, chunks, entries)

    def _serve(self, name: str, count: int, chunks: int, entries: list[bytes] | None) -> None:
        first, self._next_stream = self._next_stream, self._next_stream + 2 * count
        streams = range(first, self._next_stream, 2)
        reads = list(envoy_bytes.request_reads(streams, chunks))
        with counted(name):
            sent = self.take(reads)
        log = list(envoy_bytes.log_reads(envoy_bytes.answers_in(sent))) if entries is None else entries
        with counted(f"{name}, access log"):
            self.take(log)


def run_parts(scene: Scene, store: SampleStore) -> list[bytes]:
    """Count each step by itself, over the same requests; return the reads of their access log."""
    core, times = scene.core, range(REQUESTS)
    body = envoy_bytes.body_message(CHUNKS)
    head = envoy_bytes.headers_message(len(body))
    with counted("decode headers"):
        *_, headers = [decode(head) for _ in times]
    with counted("decode body"):
        *_, event = [decode(body) for _ in times]
    assert isinstance(headers, HeadersReceived)
    assert isinstance(event, BodyReceived)
    with counted("read request"):
        requests = [read_request(headers.headers, event.body, core.ratios) for _ in times]
    with counted("place and end"):
        placements: list[Placement] = []
        for request in requests:
            placements.append(core.place(request, Phase.REQUEST_BODY, time.monotonic()))
            if len(placements) > IN_FLIGHT and (lease := placements[-IN_FLIGHT].lease) is not None:
                lease.end(time.monotonic())
    with counted("encode"):
        answers = [encode(placement.instruction) for placement in placements]
    reads = list(
        envoy_bytes.log_reads([ext_proc_pb2.ProcessingResponse.FromString(each) for each in answers])
    )
    messages = [envoy_bytes.message_in(read) for read in reads]
    with counted("decode log"):
        entries = [entry for message in messages for entry in decode_entries(message)]
    with counted("learn"):
        outcomes = scene.learn(entries)
    with counted("store samples"):
        for outcome in outcomes:
            if outcome is not None:
                store.append(outcome.sample)
        store.close()
    return reads


async def run(directory: Path) -> None:
    """Count everything; the garbage collector is left out."""
    gc.disable()
    Scene().connection().serve("plain", 0)
    Scene().connection().serve("stream", CHUNKS)
    Scene(asks_model=True).connection().serve("model", CHUNKS)
    scene = Scene()
    scene.connection().serve("again", CHUNKS)  # so that the parts meet what the whole does
    later = asyncio.get_running_loop().call_later
    log = run_parts(scene, SampleStore.open(directory / "samples.sqlite", 1_000_000, later))
    empty = empty_service([f"vllm-{n}" for n in range(_BACKENDS)])
    Connection(empty, _nothing).serve("empty", CHUNKS, log)


def _nothing() -> None:
    pass


def _no_deadline(delay_s: float, callback: object) -> "_NoTimer":
    return _NoTimer()


class _NoTimer:
    def cancel(self) -> None:
        """Cancel nothing."""
