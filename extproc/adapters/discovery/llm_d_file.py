"""The servers that a file lists, in the format of llm-d's file discovery; it is read again when it changes.

The file is YAML or JSON, of at most 1 MiB. One that cannot be read, or has a fault, is refused whole, and the
servers known before stay. See `docs/discovery.md` of llm-d-router.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence

import msgspec

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.discovery.source import DiscoveryCounts, is_of_family, name_of_pod, usable_host
from extproc.adapters.files.file_watch import watch_file
from extproc.config.discovery_stage import LlmdFileDiscovery
from extproc.config.yaml_document import read_list_document
from extproc.errors import ConfigError
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.inference_stage import ROLE_LABEL

logger = logging.getLogger(__name__)

MAX_BYTES = 1 << 20
"""Borrowed: llm-d reads no larger file."""

_DEFAULT_NAMESPACE = "default"


class ListedServer(msgspec.Struct):
    """One entry; its name is unique within its namespace, and its port may be a text."""

    name: str
    address: str
    port: int | str
    namespace: str = _DEFAULT_NAMESPACE
    labels: dict[str, str | int | float | bool | None] = {}

    @property
    def unique_name(self) -> str:
        """Its name, with the namespace where that is not the usual one."""
        return self.name if self.namespace == _DEFAULT_NAMESPACE else f"{self.namespace}-{self.name}"


class ServerList(msgspec.Struct):
    """The whole file."""

    endpoints: list[ListedServer]


class LlmdFileSource:
    """Yields the servers in the file whenever it has changed and can be used."""

    def __init__(self, config: LlmdFileDiscovery) -> None:
        self.counts = DiscoveryCounts()
        self._config = config
        self._conditions = ConditionLog(logger, "endpoints_file_refused", "endpoints_file_read")

    async def sets(self) -> AsyncGenerator[Sequence[Endpoint], None]:
        """Yield one set for each version of the file that can be used."""
        path = self._config.path
        async for content in watch_file(path, MAX_BYTES + 1):
            try:
                found = await asyncio.to_thread(read_servers, content, self._config)
            except (ValueError, ConfigError) as error:
                self.counts.failures += 1
                self._conditions.failed(str(error), time.monotonic(), path=str(path))
                continue
            self.counts.answers += 1
            self._conditions.holds(path=str(path))
            yield found


def read_servers(content: bytes | None, config: LlmdFileDiscovery) -> list[Endpoint]:
    """Return the servers of the configured family, in their order; raises ValueError or ConfigError."""
    if content is None or len(content) > MAX_BYTES:
        raise ValueError("no such file" if content is None else f"more than {MAX_BYTES} bytes")
    listed = _parse(content.decode()).endpoints
    found = [_endpoint(server, config) for server in listed]
    for described in ({one.name for one in found}, {one.address for one in found}):
        if len(described) < len(found):
            raise ValueError("two endpoints have one name, or one address and port")
    return [one for one in found if is_of_family(one.host, config.family)]


def _parse(text: str) -> ServerList:
    try:
        return msgspec.json.decode(text, type=ServerList)
    except msgspec.ValidationError:
        raise
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except msgspec.DecodeError:  # no JSON
        return msgspec.convert(read_list_document(text, "endpoints"), ServerList)


def _endpoint(server: ListedServer, config: LlmdFileDiscovery) -> Endpoint:
    host = usable_host(server.address)
    port = int(server.port)
    if host is None or not 0 < port < 65536 or not server.name:
        raise ValueError(f"endpoint {server.name!r}: no usable name, IP address or port")
    role = server.labels.get(ROLE_LABEL)
    return config.endpoint(name_of_pod(server.unique_name), host, port, None if role is None else str(role))
