"""What the fields of the configuration may hold: types that pydantic checks.

They refuse what would only fail later, or never: a port 0, a URL with a password, an infinity, and `yes` or
"5" where a number is meant (YAML has types of its own).
"""

import re
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

_BACKEND_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_RESERVED_NAMES = frozenset({"extproc", "extproc_pool"})
_RESERVED_ENDINGS = ("_endpoint", "_retry")
_HOST_NAME = re.compile(r"(?=.{1,253}$)\w[\w-]{0,62}(\.\w[\w-]{0,62})*\.?", re.ASCII)
_SELECTOR = re.compile(r"[A-Za-z0-9_./=!,() -]+")
_PORT_NAME = re.compile(r"(?=.{1,63}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_HOST_AND_PORT = re.compile(r"(\[(?P<ipv6>[0-9A-Fa-f:.]+)]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")


_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")


class Stage(BaseModel):
    """One stage's settings: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _is_host_and_port(text: str, default_port: int = 0) -> bool:
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None:
        return False
    if match["ipv6"]:
        IPv6Address(match["ipv6"])  # raises ValueError where it is none
    return 0 < int(match["port"] or default_port) < 65536


def _checked_address(text: str) -> str:
    is_socket = text.startswith("unix:///") and len(text) > len("unix:///")
    if not is_socket and not _is_host_and_port(text):
        raise ValueError("expected HOST:PORT or unix:///PATH")
    return text


def _checked_tcp_address(text: str) -> str:
    if not _is_host_and_port(text):
        raise ValueError("expected HOST:PORT")
    return text


def _checked_ip_and_port(text: str) -> str:
    host = _checked_tcp_address(text).rpartition(":")[0].strip("[]")
    try:
        ip_address(host)
    except ValueError as error:
        raise ValueError("expected IP:PORT") from error
    return text


def _checked_url(text: str) -> str:
    host_and_port = text.removeprefix("http://").removesuffix("/")
    if not text.startswith("http://") or not _is_host_and_port(host_and_port, default_port=80):
        raise ValueError("expected http://HOST:PORT, without path, query or user")
    return f"http://{host_and_port}"


def _checked_name(text: str) -> str:
    if not _BACKEND_NAME.fullmatch(text) or text in _RESERVED_NAMES or text.endswith(_RESERVED_ENDINGS):
        raise ValueError(
            "expected 1 to 63 letters, digits, '-' or '_', not reserved for Envoy's other clusters"
        )
    return text


def _checked_models(models: tuple[str, ...]) -> tuple[str, ...]:
    if not models:
        raise ValueError("expected a name, or null: the server is asked")
    return models


def _checked_host_name(text: str) -> str:
    if not _HOST_NAME.fullmatch(text) or text.rstrip(".").rpartition(".")[2].isdecimal():
        raise ValueError("expected a name that DNS knows, such as vllm.default.svc.cluster.local")
    return text


def _checked_selector(text: str) -> str:
    if not _SELECTOR.fullmatch(text):
        raise ValueError("expected a label selector, such as kubernetes.io/service-name=vllm")
    return text


def _checked_port_name(text: str) -> str:
    if not _PORT_NAME.fullmatch(text):
        raise ValueError("expected the number or the name of a port")
    return text


def _checked_header(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("expected the name of a header, in lower case")
    return name


def _checked_limit(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """One fault, where a union has one for each of its members."""
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError("expected a whole number, at least 1, or auto") from error


def _checked_path(path: Path) -> Path:
    if not path.name:
        raise ValueError("expected the path of a file")
    return path


GrpcAddress = Annotated[str, AfterValidator(_checked_address)]
TcpAddress = Annotated[str, AfterValidator(_checked_tcp_address)]
NameServer = Annotated[str, AfterValidator(_checked_ip_and_port)]
BackendUrl = Annotated[str, AfterValidator(_checked_url)]
BackendName = Annotated[str, AfterValidator(_checked_name)]
ModelNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(_checked_models)]
HostName = Annotated[str, AfterValidator(_checked_host_name)]
Selector = Annotated[str, AfterValidator(_checked_selector)]
PortName = Annotated[str, AfterValidator(_checked_port_name)]
HeaderName = Annotated[str, AfterValidator(_checked_header)]
FilePath = Annotated[Path, AfterValidator(_checked_path)]
Flag = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Port = Annotated[Whole, Field(ge=1, le=65535)]
Count = Annotated[Whole, Field(ge=1, le=1 << 30)]
Limit = Annotated[Count | Literal["auto"], WrapValidator(_checked_limit)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Seconds = Annotated[Number, Field(gt=0, le=3600)]
