"""The configuration: one frozen model per stage, read from `extproc.yaml`.

Only this module reads the file, and never at import. Unknown fields are errors, and all errors of a file
are reported at once. `extproc.example.yaml` documents every field. Comments at the defaults say whether a
number was measured, borrowed (from whom) or guessed.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, model_validator

from extproc.config.admission_stage import AdmissionConfig
from extproc.config.discovery_stage import Discovery, StaticDiscovery
from extproc.config.fields import (
    BackendName,
    BackendUrl,
    Count,
    FilePath,
    Flag,
    Limit,
    ModelNames,
    Number,
    Seconds,
    Stage,
    Whole,
)
from extproc.config.listener_stages import HttpConfig, ServerConfig
from extproc.config.yaml_document import read_document
from extproc.errors import ConfigError
from extproc.fleet.registry import MAX_MEMBERS
from extproc.policy.least_load import SCORES

MAX_BACKENDS = MAX_MEMBERS // 2
"""All of them can be replaced at once: the departing ones keep their place until they have drained."""
_MAX_FAULTS = 100
"""More would only fill the log."""


class EnvoyConfig(Stage):
    """The files that Envoy reads, and how long it takes to do so."""

    cds_path: FilePath = Path("/var/run/extproc/cds.json")
    settle_s: Seconds = 1.5  # measured: new clusters are live within a second of the rename


class BackendConfig(Stage):
    """One vLLM server. Without `models` it is asked for them (`/v1/models`)."""

    name: BackendName
    url: BackendUrl
    models: ModelNames | None = None
    max_num_seqs: Count | None = None

    @property
    def host(self) -> str:
        """The URL's host, an address or a name."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The URL's port, 80 where it names none."""
        return urlsplit(self.url).port or 80


def _checked_fleet(backends: tuple[BackendConfig, ...]) -> tuple[BackendConfig, ...]:
    faults = []
    if not 0 < len(backends) <= MAX_BACKENDS:
        faults.append(f"expected 1 to {MAX_BACKENDS}, found {len(backends)}")
    for what, values in (
        ("name", [backend.name for backend in backends]),
        ("address", [f"{backend.host}:{backend.port}" for backend in backends]),
    ):
        repeated = sorted(value for value, count in Counter(values).items() if count > 1)
        if repeated:
            faults.append(f"every {what} must be given once, repeated: {', '.join(repeated)}")
    if faults:
        raise ValueError("; ".join(faults))
    return backends


def _checked_discovery(discovery: Discovery, info: ValidationInfo) -> Discovery:
    backends = info.data.get("backends")  # None where they have faults of their own
    if discovery.kind == "static" and backends == ():
        raise ValueError("a list of `backends` is needed, or discovery of another kind than static")
    if discovery.kind != "static" and backends:
        raise ValueError(f"with kind {discovery.kind} there is no list of `backends`: they are found")
    return discovery


Backends = Annotated[tuple[BackendConfig, ...], AfterValidator(_checked_fleet)]
Source = Annotated[Discovery, AfterValidator(_checked_discovery), Field(validate_default=True)]


class ScrapeConfig(Stage):
    """How `/metrics` is read."""

    busy_interval_s: Seconds = 0.1  # design: 10 Hz where there is traffic
    idle_interval_s: Seconds = 1.0  # design: 1 Hz where there is none
    timeout_s: Seconds = 1.0  # measured: 177 ms at the start of a burst of 400; the rest is margin
    stale_after_s: Seconds = 2.0  # guessed: two idle intervals
    models_interval_s: Seconds = 30.0  # guessed: adapters are loaded rarely
    max_response_bytes: Whole = Field(default=4 << 20, ge=1 << 10, le=1 << 30)  # measured: vLLM prints 48 KB

    @model_validator(mode="after")
    def _signals_outlive_the_intervals(self) -> Self:
        if self.stale_after_s <= max(self.busy_interval_s, self.idle_interval_s):
            raise ValueError("stale_after_s must be larger than busy_interval_s and idle_interval_s")
        return self


class ZonesConfig(Stage):
    """Where the low zone ends and the medium one starts, as TTFT and as load."""

    low_s: Seconds = 1.0  # measured in the deployment that this project comes from
    medium_load: Number = Field(default=16.0, ge=1)  # guessed; each backend's own is learned from outcomes


class AutoLimitConfig(Stage):
    """Between which numbers `guard.max_active: auto` finds a backend's limit."""

    min_active: Count = 4  # guessed: fewer answers at a time tell too little about the server
    max_active: Count = 1024  # guessed: four times vLLM's default of max_num_seqs

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_active > self.max_active:
            raise ValueError("min_active must not be larger than max_active")
        return self


class GuardConfig(Stage):
    """When a backend is taken out because it is saturated, and when it comes back."""

    max_active: Limit = 100  # measured: beyond it the origin's TTFT was queue-bound
    auto: AutoLimitConfig = AutoLimitConfig()
    resume_active: Annotated[Whole, Field(ge=0)] | None = None  # None: 80 % of max_active
    max_predicted_ttft_s: Seconds = 5.0  # borrowed from the design: half the saturated bound

    @model_validator(mode="after")
    def _resume_below_max(self) -> Self:
        if self.resume_active is None:
            return self
        if self.max_active == "auto":
            raise ValueError("resume_active must be null with max_active: auto")
        if self.resume_active >= self.max_active:
            raise ValueError("resume_active must be smaller than max_active")
        return self


class BreakerConfig(Stage):
    """When a backend is taken out because it fails, and how it is probed."""

    consecutive_failures: Count = 5  # borrowed: Envoy's outlier detection default
    min_pause_s: Seconds = 1.0  # guessed
    max_pause_s: Seconds = 30.0  # borrowed: Envoy's base ejection time
    probe_timeout_s: Seconds = 5.0  # guessed: how long a finished probe's outcome is waited for

    @model_validator(mode="after")
    def _pauses_in_order(self) -> Self:
        if self.min_pause_s > self.max_pause_s:
            raise ValueError("min_pause_s must not be larger than max_pause_s")
        return self


class PredictConfig(Stage):
    """Layer 2: when the model is asked and believed."""

    is_enabled: Flag = True
    tie_fraction: Number = Field(default=0.05, ge=0, le=1)  # design: within 5 % is a tie
    max_candidates: Whole = Field(default=16, ge=1, le=256)  # design: asked about the 16 least loaded only
    error_factor: Number = Field(default=2.0, ge=1)  # guessed: "well above" the promised error
    error_floor: Number = Field(default=0.2, ge=0)  # guessed: as a log ratio; 0.2 is 22 %
    min_outcomes: Count = 8  # guessed: before that the running error says nothing


def _checked_score(name: str) -> str:
    if name not in SCORES:
        raise ValueError(f"expected one of {', '.join(SCORES)}")
    return name


class LeastLoadConfig(Stage):
    """Layer 3: by which score candidates are compared."""

    score: Annotated[str, AfterValidator(_checked_score)] = "expected_wait"


class ModelConfig(Stage):
    """The model file of layer 2; it may be absent, and is swapped in when it changes."""

    path: FilePath = Path("models/zone2_predictor.json")


class SamplesConfig(Stage):
    """Where outcomes are recorded; without a path they are not."""

    path: FilePath | None = None
    max_rows: Whole = Field(default=1_000_000, ge=100, le=1 << 30)  # guessed: about 300 MB


class TrainerConfig(Stage):
    """When `extproc trainer` makes a model, from what, and by how much it must be better."""

    poll_s: Seconds = 1.0  # guessed
    interval_s: Seconds = 300.0  # guessed: traffic changes over hours, machines are watched all the time
    min_new_samples: Count = 200  # guessed: fewer would not change a model that was made from thousands
    rows_per_stratum: Whole = Field(default=5000, ge=100, le=1 << 20)  # guessed
    tuning_s: Number = Field(default=10.0, ge=0, le=3600)  # guessed
    margin: Number = Field(default=0.05, ge=0, le=1)  # guessed: less is noise between two held-out sets


class Config(Stage):
    """The whole of `extproc.yaml`."""

    server: ServerConfig = ServerConfig()
    http: HttpConfig = HttpConfig()
    envoy: EnvoyConfig = EnvoyConfig()
    backends: Backends = ()
    discovery: Source = StaticDiscovery()
    scrape: ScrapeConfig = ScrapeConfig()
    zones: ZonesConfig = ZonesConfig()
    guard: GuardConfig = GuardConfig()
    breaker: BreakerConfig = BreakerConfig()
    predict: PredictConfig = PredictConfig()
    least_load: LeastLoadConfig = LeastLoadConfig()
    admission: AdmissionConfig = AdmissionConfig()
    model: ModelConfig = ModelConfig()
    samples: SamplesConfig = SamplesConfig()
    trainer: TrainerConfig = TrainerConfig()


def parse_config(text: str, origin: str) -> Config:
    """Read a configuration from YAML text; `origin` names it in the message.

    Raises ConfigError with every fault, one a line, up to `_MAX_FAULTS`.
    """
    document = read_document(text, origin)
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        found = error.errors()
        faults = [f"  {_location(fault['loc'])}: {fault['msg']}" for fault in found[:_MAX_FAULTS]]
        faults += ["  ..."] if len(found) > _MAX_FAULTS else []
        raise ConfigError("\n".join([f"{origin}: {len(found)} fault(s)", *faults])) from error


def load_config(path: Path) -> Config:
    """Read the configuration file; raises ConfigError also where the file cannot be read."""
    try:
        return parse_config(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _location(parts: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in parts) or "(whole file)"
