"""The sidecar's own HTTP server: `/metrics`, `/healthz`, `/readyz`, `/v1/state`, `/v1/history` and the live
page `/`.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.descriptors import HTTP_SHARE, MAX_HTTP, share_of_descriptors
from extproc.adapters.http.fleet_state import BackendStatus
from extproc.adapters.http.host_check import is_host_accepted
from extproc.adapters.http.http_connections import DEFAULT_TIMES, HttpConnections, HttpTimes
from extproc.adapters.http.live_page import live_page
from extproc.adapters.http.metrics import sidecar_registry
from extproc.adapters.http.state_document import Runtime, StateAt
from extproc.errors import StackError

logger = logging.getLogger(__name__)

_BACKLOG = 32
AT_A_TIME = 50
"""Guessed: this many backends take a millisecond."""
_MISDIRECTED = "asked by a name that is not this machine's: use localhost, or its address\n"


class _ServerLog(logging.LoggerAdapter[logging.Logger]):
    """The log of aiohttp, without a traceback for each request that is no HTTP."""

    def __init__(self) -> None:
        super().__init__(logger)
        self._requests = ConditionLog(logger, "http_request_refused")

    def exception(self, msg: object, *args: object, exc_info: Any = True, **settings: Any) -> None:
        if isinstance(exc_info, HttpProcessingError):
            self._requests.failed(str(exc_info), time.monotonic())
        else:
            super().exception(msg, *args, exc_info=exc_info, **settings)


class _Alone(Collector):
    """One metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


class HttpServer:
    """Serves until `stop`; `more` is shown by `/metrics` beside the sidecar's own metrics."""

    def __init__(
        self,
        address: str,
        runtime: Runtime,
        times: HttpTimes = DEFAULT_TIMES,
        more: Iterable[Collector] = (),
    ) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._runtime = runtime
        self._metrics = sidecar_registry(runtime, more)
        self._times = times
        self._page, self._page_headers = live_page()
        self._connections: HttpConnections | None = None
        self._listener: asyncio.Server | None = None
        application = web.Application()
        shown = {
            "/": self._live_page,
            "/metrics": self._show_metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/v1/state": self._state,
            "/v1/history": self._history,
        }
        application.add_routes([web.get(path, partial(self._admit, show)) for path, show in shown.items()])
        self._runner = web.AppRunner(application, access_log=None, logger=_ServerLog())

    async def start(self) -> int:
        """Listen, and return the port; raises StackError if the address is taken."""
        await self._runner.setup()
        assert self._runner.server is not None, "a runner that is set up has one"
        limit = share_of_descriptors(HTTP_SHARE, MAX_HTTP)
        self._connections = connections = HttpConnections(self._runner.server, limit, self._times)
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                connections, self._host.strip("[]"), self._port, backlog=_BACKLOG
            )
        except OSError as error:
            connections.stop()
            raise StackError(f"HTTP server: cannot listen on {self._host}:{self._port}: {error}") from error
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the listener and the connections."""
        if self._listener is not None:
            self._listener.close()
        if self._connections is not None:
            self._connections.stop()
        await self._runner.cleanup()

    async def _admit(self, show: Handler, request: web.Request) -> web.StreamResponse:
        """Answer, unless the server is asked by a name that is not its own."""
        if self._connections is not None:
            self._connections.heard(request.protocol)
        name = request.transport.get_extra_info("sockname") if request.transport is not None else None
        if name and not is_host_accepted(request.headers.get("host", ""), str(name[0]), self._host):
            return web.Response(status=421, text=_MISDIRECTED)
        return await show(request)

    async def _live_page(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._page, headers=self._page_headers)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        """Answer metric by metric: all together they would hold up what else the event loop has to do."""
        pieces = []
        for metric in self._metrics.collect():
            pieces.append(generate_latest(_Alone(metric)))
            await asyncio.sleep(0)
        return web.Response(body=b"".join(pieces), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _healthz(self, _: web.Request) -> web.Response:
        """Answer 200: the process lives and its event loop runs."""
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        """Answer 200 while requests are taken: not before the gRPC server listens, not while draining."""
        if self._runtime.server.is_serving:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready\n")

    async def _state(self, _: web.Request) -> web.Response:
        """Answer after a look at some backends at a time: all together they would hold up the event loop."""
        state, backends = StateAt(self._runtime, time.monotonic()), list[BackendStatus]()
        for backend in state.backends_with_traffic():
            backends.append(backend)
            if not len(backends) % AT_A_TIME:
                await asyncio.sleep(0)
        return _as_json(state.document(backends))

    async def _history(self, _: web.Request) -> web.Response:
        return _as_json(self._runtime.traffic.steps(time.monotonic()))


def _as_json(document: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")
