"""The servers that `extproc profile` puts load on, and their model: checked before any load is sent."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import msgspec
from pydantic import TypeAdapter, ValidationError

from extproc.adapters.vllm.served_models import decode_models
from extproc.config.backends_stage import BackendConfig
from extproc.config.fault_message import fault_message, system_message
from extproc.config.fields import BackendUrl
from extproc.config.given_sources import numbered_servers
from extproc.errors import ConfigError, ProfileError
from extproc.fleet.endpoint import Endpoint

PATIENCE_S = 5.0
"""Guessed: a server that is asked for its models before there is load answers in milliseconds."""

_URL: TypeAdapter[str] = TypeAdapter(BackendUrl)


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the load goes: to `backends` directly, or to a stack's Envoy, whose sidecar is at `state_url`."""

    backends: tuple[Endpoint, ...] = ()
    stack_url: str = ""
    state_url: str = ""


def parse_servers(backends: str, envoy: str, sidecar: str) -> Servers:
    """Return the servers that the options name; raises ConfigError where they name none, or two kinds.

    Backends are called vllm-1, vllm-2 and so on, in order, as `extproc up` calls them.
    """
    named = [(name, _checked(url, "--backends")) for name, url in numbered_servers(backends)]
    if bool(named) == bool(envoy or sidecar) or bool(envoy) != bool(sidecar):
        raise ConfigError("give either --backends URL,URL or both --envoy URL and --sidecar URL")
    if named:
        return Servers(backends=_backends(named))
    return Servers(stack_url=_checked(envoy, "--envoy"), state_url=_checked(sidecar, "--sidecar"))


def _backends(named: list[tuple[str, str]]) -> tuple[Endpoint, ...]:
    if len({url for _, url in named}) < len(named):
        raise ConfigError("--backends: every server must be given once")
    return tuple(BackendConfig(name=name, url=url).endpoint for name, url in named)


def _checked(url: str, option: str) -> str:
    try:
        found = _URL.validate_python(url)
    except ValidationError as error:
        raise ConfigError(f"{option}: {url!r}: {fault_message(error.errors()[0])}") from error
    parts = urlsplit(found)
    if parts.scheme != "http" or parts.path:
        raise ConfigError(f"{option}: {url!r}: load is sent over plain HTTP, without a prefix of the paths")
    return found


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that all servers have; `max_model_len` is the smallest context, None where no server says."""

    name: str
    max_model_len: int | None


async def find_model(session: aiohttp.ClientSession, urls: Sequence[str], name: str | None) -> ServedModel:
    """Find the model `name`, or the only one that the servers have.

    Raises ProfileError where a server does not answer or does not have it, or where a choice is needed.
    """
    served = [await _ask(session, url) for url in urls]
    common = set.intersection(*(set(models) for models in served))
    if name is None:
        if len(common) != 1:
            listed = ", ".join(sorted(common)) or "none that all of them have"
            raise ProfileError(f"--model is needed: {' and '.join(urls)} serve {listed}")
        (name,) = common
    for url, models in zip(urls, served, strict=True):
        if name not in models:
            raise ProfileError(f"{url} does not serve {name}, but {', '.join(sorted(models))}")
    lengths = [length for models in served if (length := models[name]) is not None]
    return ServedModel(name, min(lengths, default=None))


async def _ask(session: aiohttp.ClientSession, url: str) -> dict[str, int | None]:
    try:
        async with asyncio.timeout(PATIENCE_S), session.get(f"{url}/v1/models") as response:
            response.raise_for_status()
            models = decode_models(await response.read())
    except TimeoutError as error:
        raise ProfileError(f"{url} does not answer within {PATIENCE_S:g} s") from error
    except (aiohttp.ClientError, OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProfileError(f"{url}/v1/models cannot be read: {system_message(error)}") from error
    lengths = ((model.id, model.max_model_len) for model in models)
    return {name: length if isinstance(length, int) else None for name, length in lengths}
