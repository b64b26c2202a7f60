"""A Kubernetes API server on loopback, as far as listing and watching goes, of the kinds in `KINDS`.

It speaks the protocol of https://kubernetes.io/docs/reference/using-api/api-concepts/: every change has a
resource version, a watch starts after one and gets each change of what it selects as a line, bookmarks on
request, an end, and 410 Gone for a version that has been forgotten.
"""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

KINDS = {
    "EndpointSlice": ("discovery.k8s.io/v1",),
    "Pod": ("v1",),
    "InferencePool": ("inference.networking.k8s.io/v1",),
    "InferenceObjective": ("llm-d.ai/v1alpha2", "inference.networking.x-k8s.io/v1alpha2"),
    "InferenceModelRewrite": ("llm-d.ai/v1alpha2", "inference.networking.x-k8s.io/v1alpha2"),
}
"""The kinds that it has, and in which groups and versions."""

BOOKMARK = "bookmark"
SERVICE = "kubernetes.io/service-name"
TOKEN = "good token"


def path_of(kind: str, version: str = "") -> str:
    """Where objects of a kind are; without a version in its first one."""
    version = version or KINDS[kind][0]
    return f"/{'apis' if '/' in version else 'api'}/{version}/namespaces/default/{kind.lower()}s"


def paths_of(kind: str) -> set[str]:
    """Where objects of a kind are, in any version."""
    return {path_of(kind, version) for version in KINDS[kind]}


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


def pod(
    name: str, address: str, *, labels: dict[str, str] | None = None, ready: bool = True, **meta: Any
) -> Any:
    """A pod as the kubelet reports it; `meta` has further fields of its metadata."""
    addresses = {"podIP": address, "podIPs": [{"ip": address}]} if address else {}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"app": "vllm", **(labels or {})},
            **meta,
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "vllm", "image": "vllm"}]},
        "status": {
            "phase": "Running",
            **addresses,
            "conditions": [
                {"type": "Initialized", "status": "True"},
                {"type": "Ready", "status": "True" if ready else "False"},
            ],
        },
    }


def inference_pool(name: str = "vllm", ports: Sequence[int] = (8000,), **labels: str) -> Any:
    """A pool as the platform's team applies it; it selects pods with these labels, or `app=vllm`."""
    return {
        "kind": "InferencePool",
        "apiVersion": "inference.networking.k8s.io/v1",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels or {"app": "vllm"}},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
        },
    }


def pool_object(
    kind: str,
    name: str,
    spec: Any,
    *,
    pool: str = "vllm",
    group: str = "llm-d.ai",
    created: str = "2026-01-01T00:00:00Z",
) -> Any:
    """An object of llm-d that belongs to a pool."""
    return {
        "kind": kind,
        "apiVersion": f"{group}/v1alpha2",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": created},
        "spec": {"poolRef": {"name": pool, "group": "inference.networking.k8s.io"}, **spec},
    }


@dataclass(frozen=True)
class Change:
    """One change: of an object from `before` to `after`, each None where there is none; or a bookmark."""

    version: int
    path: str
    before: Any
    after: Any

    def event(self, query: Mapping[str, str]) -> Any:
        """Return the line that a watch with this query gets; None where it gets none."""
        was, now = (one is not None and _is_selected(one, query) for one in (self.before, self.after))
        kind = {(False, True): "ADDED", (True, True): "MODIFIED", (True, False): "DELETED"}.get((was, now))
        if kind is None:
            return None
        last = copy.deepcopy(self.after if now else self.before)
        last["metadata"]["resourceVersion"] = str(self.version)
        return {"type": kind, "object": last}


def _is_selected(one: Any, query: Mapping[str, str]) -> bool:
    wanted = [item.split("=", 1) for item in query.get("labelSelector", "").split(",") if item]
    labels = one["metadata"].get("labels", {})
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    return name in ("", one["metadata"]["name"]) and all(labels.get(key) == value for key, value in wanted)


class FakeKubernetes:
    """Its state, which tests change; `requests` has the query of every request that was let in.

    `kinds` are those that it has; without the definition of a custom resource the answer is 404.
    """

    def __init__(self) -> None:
        self.kinds = set(KINDS)
        self.objects: dict[str, dict[str, Any]] = {path: {} for kind in KINDS for path in paths_of(kind)}
        self.version = 100
        self.forgotten = 0
        self.token = TOKEN
        self.is_down = False
        self.garbage: bytes | None = None
        self.gone_as_status = False
        self.requests: list[dict[str, str]] = []
        self.asked_for: list[str] = []
        self.refused = 0
        self.watching: list[web.Request] = []
        self._history: list[Change | None] = []
        self._changed = asyncio.Condition()

    async def put(self, one: Any) -> None:
        """Create or replace an object."""
        path, name = path_of(one["kind"], one["apiVersion"]), one["metadata"]["name"]
        one["metadata"].setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        await self._record(path, self.objects[path].get(name), one)
        one["metadata"]["resourceVersion"] = str(self.version)
        self.objects[path][name] = one

    async def delete(self, name: str, kind: str = "EndpointSlice") -> None:
        """Delete an object, of its kind's first version."""
        await self._record(path_of(kind), self.objects[path_of(kind)].pop(name), None)

    async def bookmark(self) -> None:
        """Time passes without changes; every watch that has asked for it gets a bookmark."""
        await self._record(BOOKMARK, None, None)

    def forget(self) -> None:
        """Compact: nothing before the present version is known any more."""
        self.forgotten = self.version

    def drop(self) -> None:
        """Cut all connections on which somebody watches, without a word."""
        for request in self.watching:
            if request.transport is not None:
                request.transport.abort()

    def watched(self, kind: str) -> int:
        """How many watch objects of a kind."""
        return sum(request.path in paths_of(kind) for request in self.watching)

    async def end_watches(self) -> None:
        """End them in order, as after `timeoutSeconds`."""
        async with self._changed:
            self._history.append(None)
            self._changed.notify_all()

    async def _record(self, path: str, before: Any, after: Any) -> None:
        async with self._changed:
            self.version += 1
            self._history.append(Change(self.version, path, before, after))
            self._changed.notify_all()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """GET, with or without `watch`."""
        if request.headers.get("authorization") != f"Bearer {self.token}":
            self.refused += 1
            return _status(401, "Unauthorized")
        query = dict(request.query)
        self.requests.append(query)
        self.asked_for.append(request.path)
        if self.is_down:
            return web.Response(status=503, text="upstream connect error")
        if self.garbage is not None:
            return web.Response(body=self.garbage)
        if not any(request.path in paths_of(kind) for kind in self.kinds):
            return web.Response(status=404, text="404 page not found")
        if query.get("watch") == "true":
            return await self._watch(request, int(query["resourceVersion"]))
        items = [one for one in self.objects[request.path].values() if _is_selected(one, query)]
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})

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
        position = self._position(version)
        try:
            while True:
                change = await self._change(position)
                position += 1
                if change is None:
                    return response
                event = self._event(change, request)
                if event is not None:
                    await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self.watching = [other for other in self.watching if other is not request]

    def _event(self, change: Change, request: web.Request) -> Any:
        if change.path == request.path:
            return change.event(request.query)
        if change.path == BOOKMARK and request.query.get("allowWatchBookmarks") == "true":
            empty = {"metadata": {"resourceVersion": str(change.version)}, "spec": None, "endpoints": None}
            return {"type": "BOOKMARK", "object": empty}
        return None

    async def _change(self, position: int) -> Change | None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._history) > position)
            return self._history[position]

    def _position(self, version: int) -> int:
        """Where in the history the first change after the version is; its ends count for those before."""
        later = (
            n for n, change in enumerate(self._history) if change is not None and change.version > version
        )
        return next(later, len(self._history))


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


@asynccontextmanager
async def fake_kubernetes(directory: Path) -> AsyncIterator[FakeKubernetes]:
    """Run one; `directory` gets the file `kubeconfig` that leads there, and its file `token`."""
    fake = FakeKubernetes()
    application = web.Application()
    application.router.add_get("/{path:.*}", fake.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
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
