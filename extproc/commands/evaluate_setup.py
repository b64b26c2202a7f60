"""From the options of `extproc evaluate` to the scenario that it runs, and to its result."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from extproc.adapters.files.run_recorder import RunRecorder
from extproc.commands.evaluate_options import EvaluateOptions
from extproc.commands.evaluate_view import runs_with_progress
from extproc.commands.trace_view import played_lines
from extproc.config.stages import load_config
from extproc.errors import ConfigError
from extproc.lab.evaluation.estimate_judge import MAX_JUDGED
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.nuisances import Nuisances, parse_cold_start, parse_spans
from extproc.lab.evaluation.offered_load import OfferedLoad, offered_load
from extproc.lab.evaluation.over_seeds import Evaluation, summaries
from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.evaluation.trace_spec import TraceSpec
from extproc.lab.evaluation.workload_text import WorkloadSpec, parse_workload
from extproc.lab.load.trace_file import read_length_file, read_trace_file
from extproc.lab.rivals.choice import parse_policies
from extproc.lab.rivals.layered import layered_rules
from extproc.lab.traffic.trace import Replay
from extproc.lab.twin.profile_file import find_profile
from extproc.learning.model_file import load

EVALUATED_STAGES = {"scrape", "zones", "guard", "breaker", "predict", "least_load", "admission"}
"""The stages of a configuration that have a meaning in virtual time."""


def evaluated(
    options: EvaluateOptions, scenario: Scenario, offered: OfferedLoad, console: Console
) -> Evaluation:
    """Run all policies on all seeds, and show how far they are."""
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
        **scenario.surroundings(),
        capacity_per_s=sum(scenario.capacities_per_s),
        model_version=None if model_file is None else load(model_file).manifest.model_version,
        policies=summaries(runs),
        runs=runs,
    )


def scenario_of(
    options: EvaluateOptions,
) -> tuple[Scenario, WorkloadSpec | TraceSpec, OfferedLoad]:
    """Return the scenario, its workload, and what that is on this fleet."""
    specs = parse_fleet(options.fleet, find_profile)
    workload = parse_workload(options.workload, read_length_file, read_trace_file)
    offered = offered_load(workload, specs, options.max_model_len)
    if options.from_s >= offered.duration_s:
        raise ConfigError(f"--from: nothing is counted; the workload lasts {offered.duration_s:g} s")
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
        judged=MAX_JUDGED if options.is_estimate_judged else 0,
        nuisances=_nuisances(options),
    )
    return scenario, workload, offered


def _nuisances(options: EvaluateOptions) -> Nuisances:
    stalls, frozen, cold = options.stalls, options.frozen_gauges, options.cold_start
    return Nuisances(
        ttft_noise=options.ttft_noise,
        speed_noise=options.speed_noise,
        retries=options.retries,
        stalls=None if stalls is None else parse_spans("--stalls", stalls),
        frozen_gauges=None if frozen is None else parse_spans("--frozen-gauges", frozen),
        cold_start=None if cold is None else parse_cold_start("--cold-start", cold),
    )


def trace_lines(workload: WorkloadSpec | TraceSpec, offered: OfferedLoad) -> list[str]:
    """Return how a trace was played; no lines for other traffic."""
    if not isinstance(workload, TraceSpec) or not isinstance(offered.traffic, Replay):
        return []
    capacity_per_s = sum(offered.capacities_per_s)
    return played_lines(
        workload.trace, offered.traffic.trace, offered.duration_s, capacity_per_s, offered.max_model_len
    )


def _stages(options: EvaluateOptions) -> dict[str, Any]:
    """Return the stages of the configuration that are evaluated; `--admission` replaces the mode in it."""
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
