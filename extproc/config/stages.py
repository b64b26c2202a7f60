"""The configuration: one frozen stage per subject, read from `extproc.yaml`.

A stage is a rule of the core where that has the same fields, and a model of its own elsewhere. Only this
module reads the file, and never at import. Unknown fields are errors, and all errors of a file are reported
at once. `extproc.example.yaml` documents every field. Comments at the defaults say whether a number was
measured, borrowed (from whom) or guessed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import AfterValidator, ValidationError

from extproc.config.backends_stage import Backends, Source
from extproc.config.discovery_stage import StaticDiscovery
from extproc.config.fault_message import fault_message, system_message
from extproc.config.fields import (
    Checked,
    FilePath,
    GrpcAddress,
    HeaderName,
    Stage,
    TcpAddress,
)
from extproc.config.gateway_stage import GatewayConfig
from extproc.config.given_sources import with_sources
from extproc.config.guard_stage import AdmissionConfig, GuardConfig
from extproc.config.regular_file import read_whole
from extproc.config.replicas_stage import ReplicasConfig
from extproc.config.tracing_stage import TracingConfig
from extproc.config.yaml_document import read_document
from extproc.errors import ConfigError
from extproc.fleet.bounds import Count, Seconds, Share
from extproc.fleet.breaker import BreakerRule
from extproc.fleet.signals import ScrapeRule
from extproc.fleet.zone import ZoneRule
from extproc.learning.model_rules import GateRule, PredictRule
from extproc.policy.least_load import SCORES
from extproc.request.session import SESSION_HEADERS
from extproc.request.slo import SloRule

MAX_CONFIG_BYTES = 1 << 20
"""Some 8,000 backends; a longer file is refused."""

_MAX_FAULTS = 100
"""More would only fill the log."""


class TlsConfig(Stage):
    """The server's certificate; with `client_ca_path`, callers need one of that authority."""

    cert_path: FilePath
    key_path: FilePath
    client_ca_path: FilePath | None = None


class ServerConfig(Stage):
    """The gRPC server that Envoy talks to."""

    address: GrpcAddress = "127.0.0.1:9002"
    transport: Literal["thin", "grpcio"] = "thin"  # measured: a quarter of the CPU
    tls: TlsConfig | None = None
    max_message_bytes: Annotated[int, Ge(1 << 16), Le(1 << 30)] = 33 << 20  # Envoy's 32 MiB and a margin
    max_held_bytes: Annotated[int, Ge(1 << 20), Le(1 << 40)] = 768 << 20  # guessed: half of Envoy's heap
    drain_s: Seconds = 5.0  # guessed: the longest that SIGTERM waits for streams to end

    def model_post_init(self, _: object) -> None:
        """Raise ValueError where TLS is not possible."""
        if self.tls is not None and (self.transport != "thin" or self.address.startswith("unix:")):
            raise ValueError("tls needs transport: thin, and a TCP address")


class HttpConfig(Stage):
    """The sidecar's own HTTP server."""

    address: TcpAddress = "127.0.0.1:9003"


class EnvoyConfig(Stage):
    """The files that Envoy reads, and how long it takes to do so."""

    cds_path: FilePath = Path("/var/run/extproc/cds.json")
    settle_s: Seconds = 1.5  # measured: new clusters are live within a second of the rename


def _checked_score(name: str) -> str:
    if name not in SCORES:
        raise ValueError(f"expected one of {', '.join(SCORES)}")
    return name


class LeastLoadConfig(Stage):
    """Layer 3: by which score candidates are compared."""

    score: Annotated[str, AfterValidator(_checked_score)] = "expected_wait"


class SessionsConfig(Stage):
    """Whether the sessions of requests are followed, and one more header that tells them."""

    is_enabled: bool = True
    header: HeaderName | None = None

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers that are read; the configured one counts first."""
        if not self.is_enabled:
            return ()
        return SESSION_HEADERS if self.header is None else (self.header, *SESSION_HEADERS)


class ModelConfig(Stage):
    """The model file of layer 2; it may be absent, and is swapped in when it changes."""

    path: FilePath = Path("models/zone2_predictor.json")


class SamplesConfig(Stage):
    """Where outcomes are recorded; without a path they are not."""

    path: FilePath | None = None
    max_rows: Annotated[int, Ge(100), Le(1 << 30)] = 1_000_000  # guessed: about 300 MB


class TrainerConfig(Stage):
    """When `extproc trainer` makes a model, from what, and by how much it must be better."""

    poll_s: Seconds = 1.0  # guessed
    interval_s: Seconds = 300.0  # guessed: traffic changes over hours, machines are watched all the time
    min_new_samples: Count = 200  # guessed: fewer would not change a model that was made from thousands
    rows_per_stratum: Annotated[int, Ge(100), Le(1 << 20)] = 5000  # guessed
    tuning_s: Annotated[float, Ge(0), Le(3600)] = 10.0  # guessed
    margin: Share = GateRule().margin


class Config(Stage):
    """The whole of `extproc.yaml`."""

    server: ServerConfig = ServerConfig()
    http: HttpConfig = HttpConfig()
    envoy: EnvoyConfig = EnvoyConfig()
    gateway: GatewayConfig = GatewayConfig()
    backends: Backends = ()
    discovery: Source = StaticDiscovery()
    scrape: Checked[ScrapeRule] = ScrapeRule()
    zones: Checked[ZoneRule] = ZoneRule()
    guard: GuardConfig = GuardConfig()
    breaker: Checked[BreakerRule] = BreakerRule()
    predict: Checked[PredictRule] = PredictRule()
    least_load: LeastLoadConfig = LeastLoadConfig()
    admission: Checked[AdmissionConfig] = AdmissionConfig()
    slo: Checked[SloRule] = SloRule()
    sessions: SessionsConfig = SessionsConfig()
    model: ModelConfig = ModelConfig()
    samples: SamplesConfig = SamplesConfig()
    trainer: TrainerConfig = TrainerConfig()
    tracing: TracingConfig = TracingConfig()
    replicas: ReplicasConfig = ReplicasConfig()


def parse_config(text: str, origin: str, stages: Mapping[str, Any] | None = None) -> Config:
    """Read a configuration from YAML text; `origin` names it in the message.

    Where `stages` are given, they say where backends come from in place of the text.

    Raises ConfigError with every fault, one a line, up to `_MAX_FAULTS`.
    """
    document = read_document(text, origin)
    if stages:
        document = with_sources(document, stages)
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        found = error.errors()
        faults = [f"  {_location(fault['loc'])}: {fault_message(fault)}" for fault in found[:_MAX_FAULTS]]
        faults += ["  ..."] if len(found) > _MAX_FAULTS else []
        raise ConfigError("\n".join([f"{origin}: {len(found)} fault(s)", *faults])) from error


def load_config(path: Path | None, stages: Mapping[str, Any] | None = None) -> Config:
    """Read the configuration file, or without one take the defaults.

    Raises ConfigError also where it cannot be read, or is no regular file.
    """
    if path is None:
        return parse_config("{}", "the options", stages)
    try:
        return parse_config(read_whole(path, MAX_CONFIG_BYTES).decode(), str(path), stages)
    except FileNotFoundError as error:
        hint = "--config names another, and `extproc init` writes one"
        raise ConfigError(f"{path}: cannot be read: there is no such file; {hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {system_message(error)}") from error


def _location(parts: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in parts) or "(whole file)"
