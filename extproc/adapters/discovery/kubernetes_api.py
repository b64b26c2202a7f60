"""List and watch objects: requests to the Kubernetes API, their lines read one by one.

lightkube knows where the API is, and which account this is: in a pod by its service account, whose token is
read again when it is refused (401), elsewhere by the kubeconfig. Its own `watch` is not used: it cannot ask
for bookmarks, and starts again without a pause. See
https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Generic

import httpx2
import msgspec
from lightkube.config.client_adapter import ConnectionParams
from lightkube.core.exceptions import ConfigError, LoadResourceError
from lightkube.core.generic_client import GenericAsyncClient

from extproc.adapters.discovery.kubernetes_objects import Metadata, Object, ObjectList
from extproc.errors import ExtprocError

WATCH_S = 60
"""How long a watch lasts before the server ends it. A connection that died without a word is noticed then."""

_TIMEOUT_S = 10.0
_OK, _NOT_FOUND, _GONE = 200, 404, 410
_MAX_MESSAGE = 200


class KubernetesError(ExtprocError):
    """The API cannot be asked, refuses, or answers with something else.

    `must_list`: what is known may be wrong; `is_absent`: there are no objects of this kind at all.
    """

    def __init__(self, message: str, *, must_list: bool = False, is_absent: bool = False) -> None:
        super().__init__(message)
        self.must_list = must_list
        self.is_absent = is_absent


class WatchEvent(msgspec.Struct):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct):
    metadata: Metadata


class _ApiStatus(msgspec.Struct):
    code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class ObjectQuery(Generic[Object]):
    """The objects of one kind in one namespace, without a name our own, that the `selection` finds.

    `resource` is lightkube's class for the kind, `kind` the type that its objects are read as; `selection`
    has the request's own parameters, such as `labelSelector`.
    """

    resource: Any
    kind: type[Object]
    namespace: str | None
    selection: Mapping[str, str]


class ObjectApi(Generic[Object]):
    """Asks for the objects of one query."""

    def __init__(self, query: ObjectQuery[Object]) -> None:
        try:
            params = ConnectionParams(timeout=httpx2.Timeout(_TIMEOUT_S))
            self._client: Any = GenericAsyncClient(params, namespace=query.namespace)  # half has no types
        except (ConfigError, LoadResourceError, OSError, KeyError, ValueError, AssertionError) as error:
            raise KubernetesError(f"no access to the API: {type(error).__name__}: {error}") from error
        self._query = query

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def list(self) -> ObjectList[Object]:
        """Return all objects, and the version after which a watch begins."""
        try:
            response = await self._client.send(self._request({}, _TIMEOUT_S))
            _check(response)
            return read_list(response.content, self._query.kind)
        except _FAULTS as error:
            raise _translated(error) from error

    async def watch(self, version: str) -> AsyncGenerator[tuple[str, str, Object | None], None]:
        """Yield changes since `version`, as type, new version and object, until the server ends the watch.

        A BOOKMARK has no object. Raises KubernetesError, also where the watch was simply cut off.
        """
        params = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        try:
            response = await self._client.send(self._request(params, WATCH_S + _TIMEOUT_S), stream=True)
            try:
                if response.status_code != _OK:
                    await response.aread()
                _check(response)
                async for line in response.aiter_lines():
                    if line:
                        yield read_event(line, self._query.kind)
            finally:
                await response.aclose()
        except _FAULTS as error:
            raise _translated(error) from error

    def _request(self, params: dict[str, str], read_timeout_s: float) -> Any:
        query = self._query
        request = self._client.prepare_request("list", query.resource, params={**query.selection, **params})
        request.timeout = httpx2.Timeout(_TIMEOUT_S, read=read_timeout_s)
        return self._client.build_adapter_request(request)


_GARBAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_FAULTS = (httpx2.HTTPError, httpx2.InvalidURL, ConfigError, OSError, *_GARBAGE)


def read_list(content: bytes, kind: type[Object]) -> ObjectList[Object]:
    """Read the answer to a list; raises one of the faults that `list` translates."""
    return msgspec.json.decode(content, type=ObjectList[kind])  # type: ignore[valid-type] # known at run time


def read_event(line: str, kind: type[Object]) -> tuple[str, str, Object | None]:
    """Read one line of a watch, as `watch` yields it; raises KubernetesError, or what `watch` makes it of."""
    event = msgspec.json.decode(line, type=WatchEvent)
    if event.type == "ERROR":
        status = msgspec.json.decode(event.object, type=_ApiStatus)
        # Mostly 410; whatever it is, the version may be what is wrong.
        raise KubernetesError(f"the watch ended: {status.code} {status.message}", must_list=True)
    if event.type == "BOOKMARK":
        return event.type, msgspec.json.decode(event.object, type=_Bookmark).metadata.resource_version, None
    found = msgspec.json.decode(event.object, type=kind)
    return event.type, found.metadata.resource_version, found


def _check(response: httpx2.Response) -> None:
    if response.status_code == _OK:
        return
    try:
        message = msgspec.json.decode(response.content, type=_ApiStatus).message
    except _GARBAGE:
        message = response.text
    raise KubernetesError(
        f"status {response.status_code} {message[:_MAX_MESSAGE]}",
        must_list=response.status_code == _GONE,
        is_absent=response.status_code == _NOT_FOUND,
    )


def _translated(error: Exception) -> KubernetesError:
    return KubernetesError(f"{type(error).__name__}: {error}", must_list=isinstance(error, _GARBAGE))
