"""An aiohttp application on a free port of this machine."""

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from support.scripted_backend import PAGE


@asynccontextmanager
async def application_at(
    routes: Iterable[web.AbstractRouteDef], tls: ssl.SSLContext | None = None, max_body_bytes: int = 1 << 20
) -> AsyncIterator[int]:
    """Serve these routes, over TLS where there is a context; the port."""
    application = web.Application(client_max_size=max_body_bytes)
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def model_server(
    model: str, routes: Iterable[web.AbstractRouteDef], **options: Any
) -> AsyncIterator[int]:
    """Serve these routes as a server of this model, whose metrics are those of an idle one; the port."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=PAGE)

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": model}]})

    usual = (web.get("/metrics", metrics), web.get("/v1/models", models))
    async with application_at((*usual, *routes), **options) as port:
        yield port
