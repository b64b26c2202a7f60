"""A Kubernetes API server on loopback, as far as listing and watching EndpointSlices goes.

It speaks the protocol of https://kubernetes.io/docs/reference/using-api/api-concepts/: every change has a
resource version, a watch starts after one and gets each change as a line, bookmarks on request, an end, and
410 Gone for a version that has been forgotten.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

PATH = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SERVICE = "kubernetes.io/service-name"
TOKEN = "good token"


def endpoint(pod: str, address: str, ready: bool | None = True, terminating: bool | None = False) -> Any:
    """One endpoint of a slice, a pod."""
    return {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": ready, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": "default", "name": pod, "uid": f"uid-of-{pod}"},
        "nodeName": "node-1",
    }


def endpoint_slice(
    name: str, endpoints: Sequence[Any], port: int = 8000, family: str = "IPv4", service: str = "vllm"
) -> Any:
    """A slice as the controller writes it."""
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": name, "namespace": "default", "labels": {SERVICE: service}},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    }


class FakeKubernetes:
    """Its state, which tests change; `requests` has the query of every request that was let in."""

    def __init__(self) -> None:
        self.slices: dict[str, Any] = {}
        self.version = 100
        self.forgotten = 0
        self.token = TOKEN
        self.is_down = False
        self.garbage: bytes | None = None
        self.gone_as_status = False
        self.requests: list[dict[str, str]] = []
        self.refused = 0
        self.watching: list[web.Request] = []
        self._history: list[tuple[int, Any]] = []
        self._changed = asyncio.Condition()

    async def put(self, one: Any) -> None:
        """Create or replace a slice."""
        kind = "MODIFIED" if one["metadata"]["name"] in self.slices else "ADDED"
        await self._record(kind, one)
        self.slices[one["metadata"]["name"]] = one

    async def delete(self, name: str) -> None:
        """Delete a slice."""
        await self._record("DELETED", self.slices.pop(name))

    async def bookmark(self) -> None:
        """Time passes without changes here; who has asked for it is told."""
        empty = {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": ""}
        await self._record("BOOKMARK", {**empty, "metadata": {}, "endpoints": None, "ports": None})

    def forget(self) -> None:
        """Compact: nothing before the present version is known any more."""
        self.forgotten = self.version
        self._history.clear()

    def drop(self) -> None:
        """Cut all connections on which somebody watches, without a word."""
        for request in self.watching:
            if request.transport is not None:
                request.transport.abort()

    async def end_watches(self) -> None:
        """End them in order, as after `timeoutSeconds`."""
        async with self._changed:
            self._history.append((self.version, None))
            self._changed.notify_all()

    async def _record(self, kind: str, one: Any) -> None:
        async with self._changed:
            self.version += 1
            one["metadata"]["resourceVersion"] = str(self.version)
            self._history.append((self.version, {"type": kind, "object": one}))
            self._changed.notify_all()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """GET, with or without `watch`."""
        if request.headers.get("authorization") != f"Bearer {self.token}":
            self.refused += 1
            return _status(401, "Unauthorized")
        query = dict(request.query)
        self.requests.append(query)
        if self.is_down:
            return web.Response(status=503, text="upstream connect error")
        if self.garbage is not None:
            return web.Response(body=self.garbage)
        if query.get("watch") == "true":
            return await self._watch(request, int(query["resourceVersion"]))
        label, _, value = query["labelSelector"].partition("=")
        items = [one for one in self.slices.values() if one["metadata"]["labels"].get(label) == value]
        return web.json_response(
            {
                "kind": "EndpointSliceList",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": {"resourceVersion": str(self.version)},
                "items": items,
            }
        )

    async def _watch(self, request: web.Request, version: int) -> web.StreamResponse:
        if version < self.forgotten and self.gone_as_status:
            return _status(410, "too old resource version")
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        if version < self.forgotten:
            gone = {
                "kind": "Status",
                "status": "Failure",
                "code": 410,
                "reason": "Expired",
                "message": "too old",
            }
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        self.watching.append(request)
        position = len(self._history) if version >= self.version else self._position(version)
        try:
            while True:
                event = await self._event(position)
                position += 1
                if event is None:
                    return response
                if event["type"] != "BOOKMARK" or request.query.get("allowWatchBookmarks") == "true":
                    await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self.watching = [other for other in self.watching if other is not request]

    async def _event(self, position: int) -> Any:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._history) > position)
            return self._history[position][1]

    def _position(self, version: int) -> int:
        return next(n for n, (at, event) in enumerate(self._history) if at > version and event is not None)


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


@asynccontextmanager
async def fake_kubernetes(directory: Path) -> AsyncIterator[FakeKubernetes]:
    """Run one; `directory` gets the file `kubeconfig` that leads there, and its file `token`."""
    fake = FakeKubernetes()
    application = web.Application()
    application.router.add_get(PATH, fake.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    (directory / "token").write_text(TOKEN)
    named = [
        ("cluster", {"server": f"http://{host}:{port}"}),
        ("user", {"tokenFile": str(directory / "token")}),
    ]
    document: dict[str, Any] = {f"{kind}s": [{"name": "fake", kind: value}] for kind, value in named}
    context = {"cluster": "fake", "user": "fake", "namespace": "default"}
    document |= {"contexts": [{"name": "fake", "context": context}], "current-context": "fake"}
    (directory / "kubeconfig").write_text(yaml.safe_dump(document))
    try:
        yield fake
    finally:
        fake.drop()
        await runner.cleanup()
