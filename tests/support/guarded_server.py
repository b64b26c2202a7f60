"""A server behind TLS, a prefix of its paths and an API key, as far as each is wanted."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trustme
from aiohttp import web
from support.local_application import application_at
from support.scripted_backend import PAGE


@dataclass
class GuardedServer:
    """Knows only the paths below its prefix, and says what was asked of it."""

    name: str
    prefix: str = ""
    tls: ssl.SSLContext | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    models: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    resets: list[str] = field(default_factory=list)
    """Shared: the next request is reset for each of these."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[dict[str, Any]]:
        """Serve; the backend as it is configured."""
        routes = [
            web.get(f"{self.prefix}/metrics", self._metrics),
            web.get(f"{self.prefix}/v1/models", self._models),
            web.route("*", "/{path:.*}", self._answer),
        ]
        async with application_at(routes, self.tls) as port:
            self.port = port
            scheme = "http" if self.tls is None else "https"
            url = f"{scheme}://127.0.0.1:{port}{self.prefix}"
            yield {"name": self.name, "url": url, **self.settings}

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=PAGE) if self._lets_in(request) else web.Response(status=401)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        if not self._lets_in(request):
            return web.Response(status=401)
        return web.json_response({"data": [{"id": model} for model in (self.name, "all", *self.models)]})

    def _lets_in(self, request: web.Request) -> bool:
        return not self.key or request.headers.get("authorization") == f"Bearer {self.key}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.asked.append(request.path_qs)
        if self.resets and request.transport is not None:
            self.resets.pop()
            request.transport.abort()
        return web.Response(text=self.name)


def context_of(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context
