"""The servers that `extproc profile` puts load on, checked before anything is sent."""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from extproc.config.fields import BackendUrl
from extproc.config.stages import BackendConfig
from extproc.errors import ConfigError
from extproc.fleet.endpoint import Endpoint

_URL: TypeAdapter[str] = TypeAdapter(BackendUrl)


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the load goes: to `backends` directly, or to a stack's Envoy, whose sidecar is at `state_url`."""

    backends: tuple[Endpoint, ...] = ()
    stack_url: str = ""
    state_url: str = ""


def parse_servers(backends: str, stack: str, state: str) -> Servers:
    """Return the servers that the options name; raises ConfigError where they name none, or two kinds.

    Backends are called vllm-1, vllm-2 and so on, in order, as `extproc up` calls them.
    """
    urls = [url.strip() for url in backends.split(",") if url.strip()]
    if bool(urls) == bool(stack or state) or bool(stack) != bool(state):
        raise ConfigError("give either --backends URL,URL or both --stack URL and --state URL")
    if urls:
        return Servers(backends=_backends([_checked(url, "--backends") for url in urls]))
    return Servers(stack_url=_checked(stack, "--stack"), state_url=_checked(state, "--state"))


def _backends(urls: list[str]) -> tuple[Endpoint, ...]:
    if len(set(urls)) < len(urls):
        raise ConfigError("--backends: every server must be given once")
    configs = [BackendConfig(name=f"vllm-{number}", url=url) for number, url in enumerate(urls, start=1)]
    return tuple(config.endpoint for config in configs)


def _checked(url: str, option: str) -> str:
    try:
        return _URL.validate_python(url)
    except ValidationError as error:
        raise ConfigError(f"{option}: {url!r}: {error.errors()[0]['msg']}") from error
