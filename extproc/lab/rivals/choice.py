"""The policies by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from extproc.errors import ConfigError
from extproc.lab.evaluation.simulated_server import Server
from extproc.lab.rivals.aibrix import LeastLatency
from extproc.lab.rivals.counting import LeastInFlight, LeastRequest, Random, RoundRobin
from extproc.lab.rivals.endpoint_picker import ActiveRequest, DefaultProfile, TokenLoad
from extproc.lab.rivals.layered import Layered, LayeredRules
from extproc.lab.rivals.oracle import Oracle, SheddingOracle
from extproc.lab.rivals.peak_ewma import PeakEwma
from extproc.lab.rivals.policy import Policy
from extproc.lab.rivals.prefill_load import LMetric, TokenLoadAffinity


@dataclass(frozen=True, slots=True)
class RivalSetting:
    """The ingredients of one router's policy; only the oracles look into the servers, and know the limit."""

    servers: Sequence[Server]
    layered: LayeredRules
    rng: np.random.Generator
    delay_limit_s: float


NewPolicy = Callable[[RivalSetting], Policy]

POLICIES: Mapping[str, NewPolicy] = {
    "layered": lambda setting: _layered(setting, setting.layered),
    "layered-no-model": lambda setting: _layered(setting, replace(setting.layered, model_file=None)),
    "layered-no-reports": lambda setting: _layered(setting, _without_reports(setting.layered)),
    "layered-no-adapters": lambda setting: _layered(setting, setting.layered, sees_adapters=False),
    "round-robin": lambda setting: RoundRobin(setting.rng),
    "random": lambda setting: Random(setting.rng),
    "least-request": lambda setting: LeastRequest(setting.rng),
    "least-in-flight": lambda setting: LeastInFlight(setting.rng),
    "peak-ewma": lambda setting: PeakEwma(len(setting.servers), setting.rng),
    "queue-kv": lambda setting: DefaultProfile(setting.rng),
    "token-load": lambda setting: TokenLoad(setting.rng),
    "active-request": lambda setting: ActiveRequest(setting.rng),
    "least-latency": lambda _: LeastLatency(),
    "token-load-affinity": lambda setting: TokenLoadAffinity(setting.rng),
    "lmetric": lambda setting: LMetric(setting.rng),
    "oracle": lambda setting: Oracle(setting.servers),
    "shedding-oracle": lambda setting: SheddingOracle(setting.servers, setting.delay_limit_s),
}


def _without_reports(rules: LayeredRules) -> LayeredRules:
    return replace(rules, core=replace(rules.core, has_replicas=False))


def _layered(setting: RivalSetting, rules: LayeredRules, *, sees_adapters: bool = True) -> Layered:
    specs = [server.spec for server in setting.servers]
    places = [spec.limits.adapter_places for spec in specs]
    if not sees_adapters or all(each is None for each in places):
        places = []
    return Layered([spec.name for spec in specs], rules, setting.rng, places)


def parse_policies(text: str) -> tuple[str, ...]:
    """Read names separated by commas, or "all"; raises ConfigError for any other."""
    if text == "all":
        return tuple(POLICIES)
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in POLICIES]
    if unknown or not names:
        raise ConfigError(f"--policies: expected all, or some of {', '.join(POLICIES)}, not {text!r}")
    return names
