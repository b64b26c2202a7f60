"""An aiohttp application on a free port of this machine."""

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web


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
