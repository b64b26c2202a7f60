"""The sidecar's own HTTP server: `/metrics`, `/healthz`, `/readyz`, `/v1/state` and the live page `/`."""

import logging
import time
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.http.metrics import sidecar_registry
from extproc.adapters.http.state_document import Runtime, state_document
from extproc.errors import StackError

logger = logging.getLogger(__name__)

_LIVE_PAGE = Path(__file__).with_name("live_page.html")


class _ServerLog(logging.LoggerAdapter[logging.Logger]):
    """What aiohttp logs, without a traceback for each request that is no HTTP."""

    def __init__(self) -> None:
        super().__init__(logger)
        self._requests = ConditionLog(logger, "http_request_refused")

    def exception(self, msg: object, *args: object, exc_info: Any = True, **settings: Any) -> None:
        if isinstance(exc_info, HttpProcessingError):
            self._requests.failed(str(exc_info), time.monotonic())
        else:
            super().exception(msg, *args, exc_info=exc_info, **settings)


class HttpServer:
    """Serves until `stop`."""

    def __init__(self, address: str, runtime: Runtime) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._runtime = runtime
        self._metrics = sidecar_registry(runtime)
        application = web.Application()
        application.add_routes(
            [
                web.get("/", self._live_page),
                web.get("/metrics", self._show_metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/v1/state", self._state),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, logger=_ServerLog())

    async def start(self) -> int:
        """Listen, and return the port; raises StackError if the address is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host.strip("[]"), self._port).start()
        except OSError as error:
            raise StackError(f"HTTP server: cannot listen on {self._host}:{self._port}: {error}") from error
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the listener and the connections."""
        await self._runner.cleanup()

    async def _live_page(self, _: web.Request) -> web.StreamResponse:
        return web.FileResponse(_LIVE_PAGE)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._metrics)
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _healthz(self, _: web.Request) -> web.Response:
        """The process lives and its event loop turns."""
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        """Requests are taken: not before the gRPC server listens, not while draining."""
        if self._runtime.server.is_serving:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready\n")

    async def _state(self, _: web.Request) -> web.Response:
        body = msgspec.json.encode(state_document(self._runtime, time.monotonic()))
        return web.Response(body=body, content_type="application/json")
