"""How a stage of the configuration is checked, and the types of its texts.

Fields are strict: `yes`, "5" and 5.0 are refused where a flag or a whole number is meant (YAML has types of
its own), and so are infinities and unknown fields. The stage itself, a model of its own or a rule of the
core, is given as a mapping, which strictness would not allow; so it is lenient about itself, and strict
inside. A check of several fields at once raises ValueError in `__post_init__`, or in a model's
`model_post_init`.

Texts are refused that would only fail later, or never: a port 0, a URL with a password, or a name that Envoy
has for another cluster.
"""

import re
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from extproc.fleet.bounds import MAX_BACKEND_NAME
from extproc.fleet.endpoint import ENDPOINT_SUFFIX, GRPC_SUFFIX, is_ip_address


class _StrictInside:
    """Makes a stage of a model, or of a dataclass, which gets the `model_config` of the model around it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        stage: Any = handler.resolve_ref_schema(schema)
        stage.update(strict=False, config={**stage["config"], "strict": True})
        return schema


class Stage(_StrictInside, BaseModel):
    """The settings of one stage: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Rule = TypeVar("Rule")
Checked = Annotated[Rule, _StrictInside]

_RESERVED_NAME = rf"extproc(_pool)?$|.*({ENDPOINT_SUFFIX}|{GRPC_SUFFIX}|_retry)$"
DEFAULT_PORTS = {"http": 80, "https": 443}
_PATH_PREFIX = re.compile(r"(?=.{1,200}$)(?!(.*/)?\.{1,2}(/|$))[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")
_HOST_AND_PORT = re.compile(r"(\[(?P<ipv6>[0-9A-Fa-f:.]+)]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")


def checked(is_valid: Callable[[Any], object], expected: str) -> AfterValidator:
    """Return a check of a value; the fault says what was `expected`."""

    def check(value: Any) -> Any:
        if not is_valid(value):
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


def _matching(pattern: str, expected: str) -> AfterValidator:
    """Return a check that the whole text has a form."""
    return checked(re.compile(pattern, re.ASCII).fullmatch, expected)


def _is_host_and_port(text: str, default_port: int = 0) -> bool:
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None:
        return False
    if match["ipv6"]:
        IPv6Address(match["ipv6"])  # raises ValueError where it is none
    return 0 < int(match["port"] or default_port) < 65536


def _is_socket(text: str) -> bool:
    return text.startswith("unix:///") and len(text) > len("unix:///")


def _is_ip_and_port(text: str) -> bool:
    return is_ip_address(text.rpartition(":")[0].strip("[]"))


def _checked_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    host_and_port, slash, path = rest.removesuffix("/").partition("/")
    is_server = scheme in DEFAULT_PORTS and _is_host_and_port(host_and_port, DEFAULT_PORTS[scheme])
    if not is_server or (slash and not _PATH_PREFIX.fullmatch(path)):
        raise ValueError("expected http[s]://HOST:PORT[/PREFIX], without query or user")
    if path.rpartition("/")[2] in {"v1", "v2"}:
        raise ValueError(f"leave the /{path.rpartition('/')[2]} out: it belongs to the paths of requests")
    return f"{scheme}://{host_and_port}{slash}{path}"


GrpcAddress = Annotated[
    str, checked(lambda text: _is_socket(text) or _is_host_and_port(text), "HOST:PORT or unix:///PATH")
]
TcpAddress = Annotated[str, checked(_is_host_and_port, "HOST:PORT")]
IpAddress = Annotated[TcpAddress, checked(_is_ip_and_port, "IP:PORT")]
BackendUrl = Annotated[str, AfterValidator(_checked_url)]
BackendName = Annotated[
    str,
    _matching(
        rf"(?!{_RESERVED_NAME})[A-Za-z0-9]([A-Za-z0-9_-]{{0,{MAX_BACKEND_NAME - 2}}}[A-Za-z0-9])?",
        f"1 to {MAX_BACKEND_NAME} letters, digits, '-' or '_', not reserved for Envoy's other clusters",
    ),
]
ModelNames = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(strict=False),
    checked(bool, "a name, or null: the server is asked"),
]
_HOST_NAME = r"(?=.{1,253}$)(?!(.*\.)?[0-9]+\.?$)\w[\w-]{0,62}(\.\w[\w-]{0,62})*\.?"
HostName = Annotated[
    str, _matching(_HOST_NAME, "a name that DNS knows, such as vllm.default.svc.cluster.local")
]
HostOrAddress = Annotated[
    str,
    checked(
        lambda text: re.fullmatch(_HOST_NAME, text, re.ASCII) or is_ip_address(text),
        "a name that DNS knows, or an IP address",
    ),
]
Selector = Annotated[
    str, _matching(r"[A-Za-z0-9_./=!,() -]+", "a label selector, such as kubernetes.io/service-name=vllm")
]
PortName = Annotated[
    str, _matching(r"(?=.{1,63}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?", "the number or the name of a port")
]
ObjectName = Annotated[
    str,
    _matching(
        r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*",
        "a name in Kubernetes",
    ),
]
HeaderName = Annotated[
    str, _matching(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}", "the name of a header, in lower case")
]
FilePath = Annotated[Path, Field(strict=False), checked(lambda path: path.name, "the path of a file")]
Port = Annotated[int, Ge(1), Le(65535)]
