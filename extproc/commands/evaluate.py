"""`extproc evaluate`: the policy and its rivals on simulated fleets, in virtual time."""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from extproc.config.options import option, takes_options
from extproc.errors import ConfigError, ReportError

if TYPE_CHECKING:
    from rich.console import Console

    from extproc.lab.evaluation.nuisances import Nuisances
    from extproc.lab.evaluation.offered_load import OfferedLoad
    from extproc.lab.evaluation.result import Evaluation
    from extproc.lab.evaluation.scenario import Scenario
    from extproc.lab.evaluation.trace_spec import TraceSpec
    from extproc.lab.evaluation.workload_text import WorkloadSpec

EVALUATED_STAGES = {"scrape", "zones", "guard", "breaker", "predict", "least_load", "admission"}
"""The stages of a configuration that have a meaning in virtual time."""


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
        1,
        "Number of routers; a request goes to any. Layered ones report to each other what they send.",
        min=1,
        max=256,
    )
    scrape_interval_s: float = option(
        0.1, "Time between two scrapes of a backend, in seconds.", "--scrape-interval", min=0.01, max=60.0
    )
    gauge_delay_s: float = option(
        0.3, "Age of the gauges in a scrape, in seconds.", "--gauge-delay", min=0.0, max=60.0
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
        2.0, "TTFT up to which a request counts as in time, in seconds.", "--slo", min=0.001
    )
    delay_limit_s: float = option(
        2.0,
        "Delay up to which a request is good, in seconds after its first token on the fastest idle machine.",
        "--delay-limit",
        min=0.0,
    )
    from_s: float = option(
        0.0,
        "Second of the simulation from which on requests are counted.",
        "--from",
        metavar="SECONDS",
        min=0.0,
    )
    is_estimate_judged: bool = option(
        False, "Compare the estimates of layered with the truth, which is slow.", "--judge-estimate"
    )
    ttft_noise: float = option(
        0.0,
        "Noise of TTFT, as a standard deviation of its logarithm; 0.2 is about 20 %.",
        min=0.0,
        max=2.0,
    )
    speed_noise: float = option(
        0.0,
        "Noise of each machine's speed, as a standard deviation of its logarithm; it changes every 10 s.",
        min=0.0,
        max=2.0,
    )
    retries: int = option(
        0,
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


@takes_options
def evaluate(options: EvaluateOptions) -> None:
    """Compare the sidecar's policy with others on a simulated fleet.

    Everything happens in virtual time. Equal seeds give equal results. A fleet is one of local, equal,
    one-slow, mixed-16, hidden-queue, failing, elastic, h100-70b, of engines of full size full-4, full-8,
    full-mixed-4, full-mixed-8 (two speeds), full-kinds, full-kinds-8 (three kinds of machines), or a list
    of machines PROFILE*SPEED:MAX_NUM_SEQS[:KV_CACHE_TOKENS[:HTTP_LIMIT]], such as
    2xa100-8b*1:8,a100-8b*0.6:8; a PROFILE may be the file of a calibration. With /N behind the limits
    (8xa100-8b*1:32/4) requests of at most N adapters run at once. With @FROM-TO behind it a machine is
    there for that time only, in seconds, and with !FROM-TO it fails for that time: a100-8b*1:8@60-,
    a100-8b*1:8!100-160.

    A workload is one of chat, two-class, conversations, bursts, daily, each with @LOAD as a share of what
    the fleet can answer; or "ARRIVALS prompt=LENGTHS output=LENGTHS for=SECONDS", such as "poisson:0.9x
    prompt=fixed:250 output=fixed:64 for=300", where ARRIVALS is poisson:RATE,
    bursts:RATE:HEIGHT:PERIOD_S:BURST_S or daily:RATE:SWING:PERIOD_S, the RATE in requests per second, or
    with an x in shares of what the fleet can answer, and LENGTHS are as for profile. With
    turns=MEAN:PAUSE_S:SHARED_TOKENS:KINDS the requests are turns of conversations, whose prompts begin with
    all that was said before. With adapters=COUNT:SKEW each is for one of COUNT adapters, the n-th of which is
    as popular as 1 / n ** SKEW.

    Or a workload is a recorded trace, "trace:FILE[@LOAD] [for=SECONDS]". The file is one of Azure's CSV
    files (TIMESTAMP, ContextTokens, GeneratedTokens), of BurstGPT's CSV files, of Mooncake's JSONL files,
    whose prompts share prefixes, or a CSV file with at_s, prompt_tokens, output_tokens. With @LOAD the trace
    is stretched or compressed in time, bursts included, until its mean rate is that share of what the fleet
    can answer. With for=SECONDS it ends after that time of the simulation.

    Policies: layered (the sidecar's own), layered-no-model (the same without layer 2), layered-no-adapters
    (the same without affinity to adapters), round-robin, random,
    least-request (Envoy's), least-in-flight, peak-ewma (linkerd's), queue-kv (the endpoint picker's default:
    queue 2, KV cache 2, prefix 3), token-load and active-request (other scorers of its), least-latency
    (AIBrix's), token-load-affinity (the llm-d router's since August 2026), lmetric (new prompt tokens times
    batch size, arXiv 2603.15202), and the oracle, which looks into the future and is slow; shedding-oracle
    also refuses requests that would be late everywhere. From a --config, layered takes the stages guard,
    breaker, predict, least_load, zones, scrape and admission.

    Nothing goes wrong in this world but what is asked for by --ttft-noise, --speed-noise, --stalls,
    --frozen-gauges and --cold-start. With --retries clients come back as those of OpenAI do: after
    Retry-After, or without it after half a second, a second and so on, less up to a quarter. All attempts
    are one request, whose times count from the first; it is refused if the last attempt is.

    A request is good if its first token came at most the delay limit later than it would have on the fleet's
    fastest idle machine, nothing cached; good is the share of all requests, refused and failed ones included.
    """
    from rich.console import Console

    from extproc.adapters.files.atomic_file import write_json, write_or_raise
    from extproc.commands.evaluate_view import comparison_table, heading, remarks

    console = Console()
    scenario, workload, offered = _scenario(options)
    evaluation = _evaluation(options, scenario, offered, console)
    console.print(heading(evaluation), soft_wrap=True, highlight=False, markup=False, emoji=False)
    for line in _trace_lines(workload, offered):
        console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(comparison_table(evaluation))
    console.print(*remarks(evaluation), sep="\n", soft_wrap=True, highlight=False, markup=False)
    if options.json is not None:
        write_json(options.json, evaluation, ReportError)
    if options.page is not None:
        from extproc.lab.reports.evaluation_page import evaluation_page  # it takes seconds to import

        write_or_raise(options.page, evaluation_page(evaluation), ReportError)


def _evaluation(
    options: EvaluateOptions, scenario: "Scenario", offered: "OfferedLoad", console: "Console"
) -> "Evaluation":
    from extproc.adapters.files.run_recorder import RunRecorder
    from extproc.commands.evaluate_view import runs_with_progress
    from extproc.lab.evaluation.result import Evaluation, summaries
    from extproc.lab.rivals.choice import parse_policies
    from extproc.learning.model_file import load

    names = parse_policies(options.policies)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.samples is None:
        runs = runs_with_progress(scenario, names, seeds, offered.duration_s, console)
    else:
        with closing(RunRecorder(options.samples)) as recorder:
            recorded = replace(scenario, layered=replace(scenario.layered, record=recorder.record))
            runs = runs_with_progress(recorded, names, seeds, offered.duration_s, console, recorder.end_run)
    model_file = scenario.layered.model_file
    return Evaluation(
        fleet=options.fleet,
        workload=options.workload,
        routers=options.routers,
        scrape_interval_s=options.scrape_interval_s,
        gauge_delay_s=options.gauge_delay_s,
        slo_s=options.slo_s,
        delay_limit_s=options.delay_limit_s,
        from_s=options.from_s,
        nuisances=scenario.nuisances,
        capacity_per_s=sum(scenario.capacities_per_s),
        model_version=None if model_file is None else load(model_file).manifest.model_version,
        policies=summaries(runs),
        runs=runs,
    )


def _scenario(
    options: EvaluateOptions,
) -> "tuple[Scenario, WorkloadSpec | TraceSpec, OfferedLoad]":
    """Return the scenario, its workload, and what that is on this fleet."""
    from extproc.lab.evaluation.fleet_text import parse_fleet
    from extproc.lab.evaluation.offered_load import offered_load
    from extproc.lab.evaluation.scenario import Scenario
    from extproc.lab.evaluation.workload_text import parse_workload
    from extproc.lab.load.trace_file import read_length_file, read_trace_file
    from extproc.lab.rivals.layered import layered_rules
    from extproc.lab.twin.profile_file import find_profile

    specs = parse_fleet(options.fleet, find_profile)
    workload = parse_workload(options.workload, read_length_file, read_trace_file)
    offered = offered_load(workload, specs, options.max_model_len)
    if options.from_s >= offered.duration_s:
        raise ConfigError(f"from: nothing is counted; the workload lasts {offered.duration_s:g} s")
    scenario = Scenario(
        servers=specs,
        capacities_per_s=offered.capacities_per_s,
        traffic=offered.traffic,
        routers=options.routers,
        scrape_interval_s=options.scrape_interval_s,
        gauge_delay_s=options.gauge_delay_s,
        slo_s=options.slo_s,
        layered=layered_rules(_stages(options), _read(options.model_file)),
        delay_limit_s=options.delay_limit_s,
        from_s=options.from_s,
        is_estimate_judged=options.is_estimate_judged,
        nuisances=_nuisances(options),
    )
    return scenario, workload, offered


def _nuisances(options: EvaluateOptions) -> "Nuisances":
    from extproc.lab.evaluation.nuisances import Nuisances, parse_cold_start, parse_spans

    stalls, frozen, cold = options.stalls, options.frozen_gauges, options.cold_start
    return Nuisances(
        ttft_noise=options.ttft_noise,
        speed_noise=options.speed_noise,
        retries=options.retries,
        stalls=None if stalls is None else parse_spans("--stalls", stalls),
        frozen_gauges=None if frozen is None else parse_spans("--frozen-gauges", frozen),
        cold_start=None if cold is None else parse_cold_start("--cold-start", cold),
    )


def _trace_lines(workload: "WorkloadSpec | TraceSpec", offered: "OfferedLoad") -> list[str]:
    from extproc.commands.trace_view import played_lines
    from extproc.lab.evaluation.trace_spec import TraceSpec
    from extproc.lab.traffic.trace import Replay

    if not isinstance(workload, TraceSpec) or not isinstance(offered.traffic, Replay):
        return []
    capacity_per_s = sum(offered.capacities_per_s)
    return played_lines(
        workload.trace, offered.traffic.trace, offered.duration_s, capacity_per_s, offered.max_model_len
    )


def _stages(options: EvaluateOptions) -> dict[str, Any]:
    """Return the stages of the configuration that are evaluated; `--admission` replaces the mode in it."""
    from extproc.config.stages import load_config

    path = options.config
    stages = {} if path is None else load_config(path).model_dump(include=EVALUATED_STAGES)
    if options.admission is not None:
        stages["admission"] = stages.get("admission", {}) | {"mode": options.admission}
    return stages


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
