"""List and watch EndpointSlices: requests to the Kubernetes API, their lines read one by one.

lightkube knows where the API is, and who we are: in a pod by its service account, whose token is read again
when it is refused (401), elsewhere by the kubeconfig. Its own `watch` is not used: it cannot ask for
bookmarks, and starts again without a pause. See https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import msgspec
from lightkube.config.client_adapter import ConnectionParams
from lightkube.core.exceptions import ConfigError, LoadResourceError
from lightkube.core.generic_client import GenericAsyncClient
from lightkube.resources.discovery_v1 import EndpointSlice as EndpointSliceResource

from extproc.adapters.discovery.endpoint_slices import EndpointSlice, Metadata
from extproc.errors import ExtprocError

WATCH_S = 60
"""How long a watch lasts before the server ends it. A connection that died without a word is noticed then."""

_TIMEOUT_S = 10.0
_OK, _GONE = 200, 410
_MAX_MESSAGE = 200


class KubernetesError(ExtprocError):
    """The API cannot be asked, refuses, or answers with something else; `is_gone`: list again."""

    def __init__(self, message: str, *, must_list: bool = False) -> None:
        super().__init__(message)
        self.must_list = must_list


class SliceList(msgspec.Struct):
    """The answer to a list."""

    metadata: Metadata
    items: list[EndpointSlice]


class WatchEvent(msgspec.Struct):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class KubernetesApi:
    """The EndpointSlices of one namespace that `selector` finds; without a namespace our own."""

    def __init__(self, namespace: str | None, selector: str) -> None:
        try:
            params = ConnectionParams(timeout=httpx2.Timeout(_TIMEOUT_S))
            self._client: Any = GenericAsyncClient(params, namespace=namespace)  # half of it has no types
        except (ConfigError, LoadResourceError, OSError, KeyError, ValueError, AssertionError) as error:
            raise KubernetesError(f"no access to the API: {type(error).__name__}: {error}") from error
        self._selector = selector

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def list(self) -> SliceList:
        """All slices, and the version from which on a watch tells what has changed."""
        try:
            response = await self._client.send(self._request({}, _TIMEOUT_S))
            _check(response)
            return msgspec.json.decode(response.content, type=SliceList)
        except _FAULTS as error:
            raise _translated(error) from error

    async def watch(self, version: str) -> AsyncGenerator[tuple[str, EndpointSlice], None]:
        """Changes since `version`, as type and slice, until the server ends the watch.

        Of a BOOKMARK only the version counts. Raises KubernetesError, also where it was simply cut off.
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
                        yield _read_event(line)
            finally:
                await response.aclose()
        except _FAULTS as error:
            raise _translated(error) from error

    def _request(self, params: dict[str, str], read_timeout_s: float) -> Any:
        request = self._client.prepare_request(
            "list", EndpointSliceResource, params={"labelSelector": self._selector, **params}
        )
        request.timeout = httpx2.Timeout(_TIMEOUT_S, read=read_timeout_s)
        return self._client.build_adapter_request(request)


_GARBAGE = (msgspec.MsgspecError, UnicodeDecodeError)
_FAULTS = (httpx2.HTTPError, httpx2.InvalidURL, ConfigError, OSError, *_GARBAGE)


def _read_event(line: str) -> tuple[str, EndpointSlice]:
    event = msgspec.json.decode(line, type=WatchEvent)
    if event.type == "ERROR":
        status = msgspec.json.decode(event.object, type=_Status)
        # Mostly 410; whatever it is, the version may be what is wrong.
        raise KubernetesError(f"the watch ended: {status.code} {status.message}", must_list=True)
    return event.type, msgspec.json.decode(event.object, type=EndpointSlice)


def _check(response: httpx2.Response) -> None:
    if response.status_code == _OK:
        return
    try:
        message = msgspec.json.decode(response.content, type=_Status).message
    except _GARBAGE:
        message = response.text
    raise KubernetesError(
        f"status {response.status_code} {message[:_MAX_MESSAGE]}", must_list=response.status_code == _GONE
    )


def _translated(error: Exception) -> KubernetesError:
    return KubernetesError(f"{type(error).__name__}: {error}", must_list=isinstance(error, _GARBAGE))
