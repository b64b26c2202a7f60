"""`extproc evaluate`: policies on a simulated fleet, on several seeds: progress bar, table, files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from extproc.adapters.files.atomic_file import write_atomically
from extproc.commands.evaluate_view import comparison_table, heading, remarks
from extproc.errors import ConfigError, ReportError
from extproc.lab.evaluation.capacity import mean_capacities_per_s
from extproc.lab.evaluation.evaluator import Scenario, evaluate
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.result import Evaluation, PolicyRun, summaries
from extproc.lab.evaluation.simulated_server import ServerSpec
from extproc.lab.evaluation.workload_text import TraceSpec, WorkloadSpec, parse_workload
from extproc.lab.load.length_file import read_length_file
from extproc.lab.load.trace_file import read_trace_file
from extproc.lab.reports.evaluation_page import evaluation_page
from extproc.lab.rivals.choice import parse_policies
from extproc.lab.rivals.layered import LayeredRules
from extproc.lab.twin.profile_file import find_profile
from extproc.learning.model_file import load

MAX_MODEL_LEN = 8192
"""Guessed: what a model's context holds, where the smallest KV cache of the fleet does not hold less."""


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What was asked for; texts are not yet checked."""

    fleet: str
    workload: str
    policies: str
    seeds: int
    first_seed: int
    routers: int
    scrape_interval_s: float
    gauge_delay_s: float
    slo_s: float
    delay_limit_s: float
    from_s: float
    is_estimate_judged: bool
    model: Path | None
    out: Path | None
    json: Path | None


def run_evaluation(options: EvaluateOptions, rules: LayeredRules, console: Console) -> Evaluation:
    """Evaluate, show the table, write the files; the model file is that of the options.

    Raises ConfigError for what cannot be evaluated, ModelFileError, and ReportError for files not written.
    """
    names = parse_policies(options.policies)
    specs = parse_fleet(options.fleet, find_profile)
    workload = parse_workload(options.workload, read_length_file, read_trace_file)
    scenario = _scenario(options, specs, workload, rules)
    runs = _runs(options, names, scenario, workload.duration_s, console)
    evaluation = Evaluation(
        fleet=options.fleet,
        workload=options.workload,
        routers=options.routers,
        scrape_interval_s=options.scrape_interval_s,
        gauge_delay_s=options.gauge_delay_s,
        slo_s=options.slo_s,
        delay_limit_s=options.delay_limit_s,
        from_s=options.from_s,
        capacity_per_s=sum(scenario.capacities_per_s),
        model_version=_version(scenario.layered.model_file),
        policies=summaries(runs),
        runs=runs,
    )
    console.print(heading(evaluation), soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(comparison_table(evaluation))
    console.print(*remarks(evaluation), sep="\n", soft_wrap=True, highlight=False, markup=False)
    _write_files(options, evaluation)
    return evaluation


def _scenario(
    options: EvaluateOptions,
    specs: tuple[ServerSpec, ...],
    workload: WorkloadSpec | TraceSpec,
    rules: LayeredRules,
) -> Scenario:
    if options.from_s >= workload.duration_s:
        raise ConfigError(f"from: nothing is counted; the workload lasts {workload.duration_s:g} s")
    smallest = min(spec.limits.kv_cache_blocks * spec.limits.block_size for spec in specs)
    max_model_len = min(MAX_MODEL_LEN, smallest)
    capacities = mean_capacities_per_s(specs, workload.sample, max_model_len, workload.duration_s)
    return Scenario(
        servers=specs,
        capacities_per_s=capacities,
        traffic=workload.traffic(max_model_len, sum(capacities)),
        routers=options.routers,
        scrape_interval_s=options.scrape_interval_s,
        gauge_delay_s=options.gauge_delay_s,
        slo_s=options.slo_s,
        layered=replace(rules, model_file=_read(options.model)),
        delay_limit_s=options.delay_limit_s,
        from_s=options.from_s,
        is_estimate_judged=options.is_estimate_judged,
    )


def _runs(
    options: EvaluateOptions, names: tuple[str, ...], scenario: Scenario, duration_s: float, console: Console
) -> tuple[PolicyRun, ...]:
    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"), TimeRemainingColumn())
    runs = []
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        total_s = duration_s * len(names) * options.seeds
        task = progress.add_task("", total=total_s)
        for number, name in enumerate(names):
            for turn in range(options.seeds):
                done_s = (number * options.seeds + turn) * duration_s
                progress.update(task, completed=done_s, description=f"{name}, seed {turn + 1}")
                report = _reporting(progress, task, done_s)
                runs.append(evaluate(scenario, name, options.first_seed + turn, report))
    return tuple(runs)


def _reporting(progress: Progress, task: TaskID, done_s: float) -> Callable[[float], None]:
    return lambda now_s: progress.update(task, completed=done_s + now_s)


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _version(model_file: bytes | None) -> str | None:
    return None if model_file is None else load(model_file).manifest.model_version


def _write_files(options: EvaluateOptions, evaluation: Evaluation) -> None:
    if options.json is not None:
        _write(options.json, msgspec.json.format(msgspec.json.encode(evaluation)) + b"\n")
    if options.out is not None:
        _write(options.out, evaluation_page(evaluation))


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}") from error
