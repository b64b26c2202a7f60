"""Asks servers once, before they get requests: whether they answer, what they serve, if they tell their load.

The server is asked as a sidecar asks it: with its key, over TLS, below its prefix.
"""

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from extproc.adapters.vllm.api_keys import MAX_KEY_FILE_BYTES, key_header, read_key
from extproc.adapters.vllm.asked_server import AskedServer, ScrapeResult, ServerAnswer
from extproc.adapters.vllm.backend_watch import METRICS, METRICS_ELSEWHERE, MODELS
from extproc.adapters.vllm.exposition import read_signals
from extproc.adapters.vllm.kept_connection import KeptConnection
from extproc.adapters.vllm.served_models import read_models
from extproc.adapters.vllm.server_tls import ServerTls
from extproc.config.environment import usual_api_key
from extproc.config.regular_file import read_whole
from extproc.errors import ConfigError
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.signals import ScrapeRule

PATIENCE_S = 5.0
"""Guessed: a server that is asked once, by a person, may be slow or far away."""


@dataclass(frozen=True, slots=True)
class FirstContact:
    """The answers of one server: `models` is empty and `fault` says why where it cannot be used."""

    endpoint: Endpoint
    models: tuple[str, ...] = ()
    fault: ServerAnswer | None = None
    reports_load: bool = False


def first_contacts(endpoints: Iterable[Endpoint]) -> list[FirstContact]:
    """Ask all servers at once, blocking; raises ConfigError where a key cannot be read."""
    keys = [(endpoint, _key_header(endpoint.api_key_path)) for endpoint in endpoints]

    async def ask_all() -> list[FirstContact]:
        return await asyncio.gather(*(_first_contact(endpoint, header) for endpoint, header in keys))

    return asyncio.run(ask_all())


async def _first_contact(endpoint: Endpoint, header: bytes) -> FirstContact:
    tls = None if endpoint.tls is None else ServerTls(endpoint.tls)
    most_bytes = ScrapeRule().max_response_bytes
    connection = KeptConnection(endpoint.host, endpoint.port, PATIENCE_S, most_bytes, tls)
    server = AskedServer(connection, endpoint.path_prefix)
    try:
        listed = await server.ask(MODELS, header)
        served = read_models(listed.body) if listed.result is ScrapeResult.OK else None
        if served is None:
            return FirstContact(endpoint, fault=_fault(listed))
        return FirstContact(
            endpoint, tuple(sorted(served.names)), reports_load=await _reports_load(server, header)
        )
    finally:
        server.close()


def _fault(listed: ServerAnswer) -> ServerAnswer:
    if listed.result is not ScrapeResult.OK:
        return listed
    return ServerAnswer(ScrapeResult.INVALID, detail=f"the answer to {MODELS} is no list of models")


async def _reports_load(server: AskedServer, header: bytes) -> bool:
    for path in (METRICS, METRICS_ELSEWHERE):
        answer = await server.ask(path, header)
        if answer.result is ScrapeResult.OK and read_signals(answer.body) is not None:
            return True
    return False


def _key_header(path: Path | None) -> bytes:
    if path is None:
        return key_header(usual_api_key(os.environ))
    try:
        key = read_key(read_whole(path, MAX_KEY_FILE_BYTES))
    except OSError as error:
        raise ConfigError(f"{path}: the API key cannot be read: {error.strerror}") from error
    if key is None:
        raise ConfigError(f"{path}: expected an API key of visible ASCII characters, and nothing else")
    return key_header(key)
