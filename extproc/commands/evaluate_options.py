"""The options of `extproc evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from extproc.config.options import option
from extproc.lab.evaluation.surroundings import USUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """The options of `extproc evaluate`; texts are not yet checked."""

    fleet: str = option(
        "local", "Simulated fleet: one of the names above, or a list of machines.", metavar="FLEET"
    )
    workload: str = option(
        "chat", "Simulated traffic: one of the names above, a description, or a trace.", metavar="WORKLOAD"
    )
    max_model_len: int | None = option(
        None,
        "Context of the served model in tokens, prompt and output together; longer requests are cut to it.",
        min=2,
        max=131_072,
        show_default="8192; for a trace as long as it needs",
    )
    policies: str = option("all", "Policies to compare, or all.", metavar="NAME,NAME")
    seeds: int = option(3, "Number of runs of each policy, each with its own seed.", min=1, max=1000)
    first_seed: int = option(1, "Seed of the first run; the others have the next seeds.", min=0)
    routers: int = option(
        USUAL.routers,
        "Number of routers; a request goes to any. Layered ones report to each other what they send.",
        min=1,
        max=256,
    )
    scrape_interval_s: float = option(
        USUAL.scrape_interval_s,
        "Time between two scrapes of a backend, in seconds.",
        "--scrape-interval",
        min=0.01,
        max=60.0,
    )
    gauge_delay_s: float = option(
        USUAL.gauge_delay_s, "Age of the gauges in a scrape, in seconds.", "--gauge-delay", min=0.0, max=60.0
    )
    config: Path | None = option(
        None, "Configuration file of a sidecar, for the policy layered.", metavar="FILE", show_default="none"
    )
    admission: Literal["reject", "queue"] | None = option(
        None,
        "Behavior of layered if all backends are saturated.",
        show_default="as configured, else reject",
    )
    slo_s: float = option(
        USUAL.slo_s, "TTFT up to which a request counts as in time, in seconds.", "--slo", min=0.001
    )
    delay_limit_s: float = option(
        USUAL.delay_limit_s,
        "Delay up to which a request is good, in seconds after its first token on the fastest idle machine.",
        "--delay-limit",
        min=0.0,
    )
    from_s: float = option(
        USUAL.from_s,
        "Second of the simulation from which on requests are counted.",
        "--from",
        metavar="SECONDS",
        min=0.0,
    )
    is_estimate_judged: bool = option(
        False, "Compare the estimates of layered with the truth, which is slow.", "--judge-estimate"
    )
    ttft_noise: float = option(
        USUAL.nuisances.ttft_noise,
        "Noise of TTFT, as a standard deviation of its logarithm; 0.2 is about 20 %.",
        min=0.0,
        max=2.0,
    )
    speed_noise: float = option(
        USUAL.nuisances.speed_noise,
        "Noise of each machine's speed, as a standard deviation of its logarithm; it changes every 10 s.",
        min=0.0,
        max=2.0,
    )
    retries: int = option(
        USUAL.nuisances.retries,
        "Number of times that a client sends a refused or lost request again; SDKs do it twice.",
        min=0,
        max=10,
    )
    stalls: str | None = option(
        None,
        "Stalls of a router: once in PERIOD seconds, for LENGTH seconds.",
        metavar="PERIOD:LENGTH",
        show_default="none",
    )
    frozen_gauges: str | None = option(
        None,
        "Standstills of a server's metrics: once in PERIOD seconds, for LENGTH seconds.",
        metavar="PERIOD:LENGTH",
        show_default="none",
    )
    cold_start: str | None = option(
        None,
        "Slow start of a server: for SECONDS it takes TIMES as long.",
        metavar="SECONDS:TIMES",
        show_default="none",
    )
    model_file: Path | None = option(None, "Model file of layer 2.", metavar="FILE", show_default="none")
    samples: Path | None = option(
        None,
        "Sample store to which layered adds its samples, for `extproc train`.",
        metavar="FILE",
        show_default="none",
    )
    page: Path | None = option(None, "File for a page with plots.", metavar="FILE")
    json: Path | None = option(None, "File for all numbers, as JSON.", metavar="FILE")
