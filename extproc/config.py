"""The configuration: one frozen model per stage, read from `extproc.yaml`.

Only this module reads the file, and never at import. Unknown fields are errors, and all errors of a file
are reported at once. `extproc.example.yaml` documents every field. Comments at the defaults say whether a
number was measured, borrowed (from whom) or guessed.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from extproc.errors import ConfigError
from extproc.fleet.fleet import CAPACITY

MAX_BACKENDS = CAPACITY // 2
"""All of them can be replaced at once: the departing ones keep their place until they have drained."""
_BACKEND_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_RESERVED_NAMES = frozenset({"extproc", "extproc_pool"})


def _checked_address(text: str) -> str:
    if text.startswith("unix:///") and len(text) > len("unix:///"):
        return text
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("expected HOST:PORT or unix:///PATH")
    return text


def _checked_tcp_address(text: str) -> str:
    if text.startswith("unix:"):
        raise ValueError("expected HOST:PORT")
    return _checked_address(text)


def _checked_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("expected http://HOST:PORT")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
        raise ValueError("expected http://HOST:PORT without path, query or user")
    _ = parts.port  # raises ValueError where the port is no port
    return text.rstrip("/")


def _checked_name(text: str) -> str:
    if not _BACKEND_NAME.fullmatch(text) or text in _RESERVED_NAMES or text.endswith("_endpoint"):
        raise ValueError(
            "expected 1 to 63 letters, digits, '-' or '_', not reserved for Envoy's other clusters"
        )
    return text


GrpcAddress = Annotated[str, AfterValidator(_checked_address)]
TcpAddress = Annotated[str, AfterValidator(_checked_tcp_address)]
BackendUrl = Annotated[str, AfterValidator(_checked_url)]
BackendName = Annotated[str, AfterValidator(_checked_name)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class Stage(BaseModel):
    """One stage's settings: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerConfig(Stage):
    """The gRPC server that Envoy talks to."""

    address: GrpcAddress = "127.0.0.1:9002"
    max_message_bytes: int = Field(default=33 << 20, ge=1 << 16, le=1 << 30)  # Envoy's 32 MiB and a margin
    drain_s: Seconds = 5.0  # guessed: the longest that SIGTERM waits for streams to end


class HttpConfig(Stage):
    """The sidecar's own HTTP server."""

    address: TcpAddress = "127.0.0.1:9003"


class EnvoyConfig(Stage):
    """The files that Envoy reads, and how long it takes to do so."""

    cds_path: Path = Path("/var/run/extproc/cds.json")
    settle_s: Seconds = 1.5  # measured: new clusters are live within a second of the rename


class BackendConfig(Stage):
    """One vLLM server. Without `models` it is asked for them (`/v1/models`)."""

    name: BackendName
    url: BackendUrl
    models: tuple[str, ...] | None = None
    max_num_seqs: int | None = Field(default=None, ge=1)

    @property
    def host(self) -> str:
        """The URL's host, an address or a name."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The URL's port, 80 where it names none."""
        return urlsplit(self.url).port or 80


class ScrapeConfig(Stage):
    """How `/metrics` is read."""

    busy_interval_s: Seconds = 0.1  # design: 10 Hz where there is traffic
    idle_interval_s: Seconds = 1.0  # design: 1 Hz where there is none
    timeout_s: Seconds = 1.0  # measured: 177 ms at the start of a burst of 400; the rest is margin
    stale_after_s: Seconds = 2.0  # guessed: two idle intervals
    models_interval_s: Seconds = 30.0  # guessed: adapters are loaded rarely
    max_response_bytes: int = Field(default=4 << 20, ge=1 << 10)  # measured: a vLLM prints 48 KB


class ZonesConfig(Stage):
    """The bounds between low, medium and saturated, as TTFT, and where the medium zone starts, as load."""

    low_s: Seconds = 1.0  # measured in the deployment that this project comes from
    saturated_s: Seconds = 10.0  # likewise
    medium_load: float = Field(default=16.0, ge=1)  # guessed; each backend's own is learned from outcomes

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.low_s >= self.saturated_s:
            raise ValueError("low_s must be smaller than saturated_s")
        return self


class GuardConfig(Stage):
    """When a backend is taken out because it is saturated, and when it comes back."""

    max_active: int = Field(default=100, ge=1)  # measured: beyond it the origin's TTFT was queue-bound
    resume_active: int | None = Field(default=None, ge=0)  # None: 80 % of max_active
    max_predicted_ttft_s: Seconds = 5.0  # borrowed from the design: half the saturated bound

    @model_validator(mode="after")
    def _resume_below_max(self) -> Self:
        if self.resume_active is not None and self.resume_active >= self.max_active:
            raise ValueError("resume_active must be smaller than max_active")
        return self

    @property
    def resume_load(self) -> int:
        """The load at or below which a saturated backend comes back."""
        return self.max_active * 8 // 10 if self.resume_active is None else self.resume_active


class BreakerConfig(Stage):
    """When a backend is taken out because it fails, and how it is probed."""

    consecutive_failures: int = Field(default=5, ge=1)  # borrowed: Envoy's outlier detection default
    min_pause_s: Seconds = 1.0  # guessed
    max_pause_s: Seconds = 30.0  # borrowed: Envoy's base ejection time
    probe_timeout_s: Seconds = 5.0  # guessed: how long a finished probe's outcome is waited for


class PredictConfig(Stage):
    """Layer 2: when the model is asked and believed."""

    is_enabled: bool = True
    tie_fraction: float = Field(default=0.05, ge=0, le=1)  # design: within 5 % is a tie
    max_candidates: int = Field(default=16, ge=1, le=256)  # design: asked about the 16 least loaded only
    error_factor: float = Field(default=2.0, ge=1)  # guessed: "well above" the promised error
    error_floor: float = Field(default=0.2, ge=0)  # guessed: as a log ratio; 0.2 is 22 %
    min_outcomes: int = Field(default=8, ge=1)  # guessed: before that the running error says nothing


class AdmissionConfig(Stage):
    """What happens to a request when no candidate is left."""

    mode: Literal["reject"] = "reject"
    max_retry_after_s: int = Field(default=60, ge=1)  # guessed


class ModelConfig(Stage):
    """The model file of layer 2; it may be absent, and is swapped in when it changes."""

    path: Path = Path("models/zone2_predictor.json")


class SamplesConfig(Stage):
    """Where outcomes are recorded; without a path they are not."""

    path: Path | None = None
    max_rows: int = Field(default=1_000_000, ge=100)  # guessed: about 300 MB


class Config(Stage):
    """The whole of `extproc.yaml`."""

    server: ServerConfig = ServerConfig()
    http: HttpConfig = HttpConfig()
    envoy: EnvoyConfig = EnvoyConfig()
    backends: tuple[BackendConfig, ...] = Field(min_length=1, max_length=MAX_BACKENDS)
    scrape: ScrapeConfig = ScrapeConfig()
    zones: ZonesConfig = ZonesConfig()
    guard: GuardConfig = GuardConfig()
    breaker: BreakerConfig = BreakerConfig()
    predict: PredictConfig = PredictConfig()
    admission: AdmissionConfig = AdmissionConfig()
    model: ModelConfig = ModelConfig()
    samples: SamplesConfig = SamplesConfig()

    @model_validator(mode="after")
    def _backends_are_distinct(self) -> Self:
        for what, values in (
            ("name", [backend.name for backend in self.backends]),
            ("url", [backend.url for backend in self.backends]),
        ):
            repeated = sorted({value for value in values if values.count(value) > 1})
            if repeated:
                raise ValueError(
                    f"backends: every {what} must be given once, repeated: {', '.join(repeated)}"
                )
        return self


def parse_config(text: str, origin: str) -> Config:
    """Read a configuration from YAML text; `origin` names it in the message.

    Raises ConfigError with every fault, one a line.
    """
    try:
        document: Any = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{origin}: not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{origin}: expected a mapping of stages, found {type(document).__name__}")
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        faults = [f"  {_location(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise ConfigError("\n".join([f"{origin}: {len(faults)} fault(s)", *faults])) from error


def load_config(path: Path) -> Config:
    """Read the configuration file; raises ConfigError also where the file cannot be read."""
    try:
        return parse_config(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _location(parts: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in parts) or "(whole file)"
