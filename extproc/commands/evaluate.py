"""`extproc evaluate`: the policy and its rivals on simulated fleets, in virtual time."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

EVALUATED_STAGES = {"scrape", "zones", "guard", "breaker", "predict", "least_load", "admission"}
"""The stages of a configuration that have a meaning in virtual time."""


class Admission(StrEnum):
    """As `admission.mode` in the configuration."""

    REJECT = "reject"
    QUEUE = "queue"


def evaluate(
    *,
    fleet: Annotated[str, typer.Option(help="A name, or machines.", metavar="FLEET")] = "local",
    workload: Annotated[str, typer.Option(help="A name, or a text.", metavar="WORKLOAD")] = "chat",
    policies: Annotated[str, typer.Option(help="Some of them, or all.", metavar="NAME,NAME")] = "all",
    seeds: Annotated[int, typer.Option(help="How many runs of each policy.", min=1, max=1000)] = 3,
    first_seed: Annotated[int, typer.Option(help="The others follow it.", min=0)] = 1,
    routers: Annotated[
        int, typer.Option(help="Routers that do not see each other; a request goes to any.", min=1, max=256)
    ] = 1,
    scrape_interval: Annotated[
        float, typer.Option(help="Seconds between two scrapes of a backend.", min=0.01, max=60.0)
    ] = 0.1,
    gauge_delay: Annotated[
        float, typer.Option(help="Seconds by which a scrape is late.", min=0.0, max=60.0)
    ] = 0.3,
    config: Annotated[
        Path | None,
        typer.Option(help="A sidecar's configuration for layered.", metavar="FILE", show_default="none"),
    ] = None,
    admission: Annotated[
        Admission | None,
        typer.Option(
            help="What layered does where all backends are saturated.",
            show_default="as configured, else reject",
        ),
    ] = None,
    slo: Annotated[float, typer.Option(help="TTFT in seconds that is asked of a request.", min=0.001)] = 2.0,
    model: Annotated[
        Path | None, typer.Option(help="A model file for layer 2.", metavar="FILE", show_default="none")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a page with plots here.", metavar="FILE")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all numbers here.", metavar="FILE")] = None,
) -> None:
    """Compare the sidecar's policy with others on a simulated fleet, in virtual time.

    Equal seeds give equal results. A fleet is one of local, equal, one-slow, mixed-16, hidden-queue,
    failing, elastic, h100-70b, or a list of machines
    PROFILE*SPEED:MAX_NUM_SEQS[:KV_CACHE_TOKENS[:HTTP_LIMIT]], such as 2xa100-8b*1:8,a100-8b*0.6:8; a
    PROFILE may be the file of a calibration. With
    @FROM-TO behind it a machine is there for that time only, in seconds, and with !FROM-TO it fails for
    that time: a100-8b*1:8@60-, a100-8b*1:8!100-160.

    A workload is one of chat, two-class, conversations, bursts, daily, each with @LOAD as a share of what
    the fleet can answer; or "ARRIVALS prompt=LENGTHS output=LENGTHS for=SECONDS", such as "poisson:0.9x
    prompt=fixed:250 output=fixed:64 for=300", where ARRIVALS is poisson:RATE,
    bursts:RATE:HEIGHT:PERIOD_S:BURST_S or daily:RATE:SWING:PERIOD_S, the RATE in requests per second, or
    with an x in shares of what the fleet can answer, and LENGTHS are as for profile. With
    turns=MEAN:PAUSE_S:SHARED_TOKENS:KINDS the requests are turns of conversations, whose prompts begin with
    all that was said before; or trace:FILE, a CSV file with at_s, prompt_tokens, output_tokens.

    Policies: layered (the sidecar's own), round-robin, random, least-request (Envoy's), least-in-flight,
    peak-ewma (linkerd's), queue-kv (the endpoint picker's default: queue 2, KV cache 2, prefix 3),
    token-load and active-request (other scorers of its), least-latency (AIBrix's), and the oracle, which
    looks into the future and is slow. Of a --config, layered takes the stages guard, breaker, predict,
    least_load, zones, scrape and admission.
    """
    from rich.console import Console  # noqa: PLC0415 - see the package's docstring

    from extproc.commands import evaluate_command  # noqa: PLC0415 - see the package's docstring
    from extproc.lab.rivals.layered import layered_rules  # noqa: PLC0415 - see the package's docstring

    options = evaluate_command.EvaluateOptions(
        fleet=fleet,
        workload=workload,
        policies=policies,
        seeds=seeds,
        first_seed=first_seed,
        routers=routers,
        scrape_interval_s=scrape_interval,
        gauge_delay_s=gauge_delay,
        slo_s=slo,
        model=model,
        out=out,
        json=json,
    )
    evaluate_command.run_evaluation(options, layered_rules(_stages(config, admission)), Console())


def _stages(path: Path | None, admission: Admission | None) -> dict[str, Any]:
    """Return the stages of a configuration file that are evaluated; `admission` replaces its mode."""
    from extproc.config.stages import load_config  # noqa: PLC0415 - see the package's docstring

    stages = {} if path is None else load_config(path).model_dump(include=EVALUATED_STAGES)
    if admission is not None:
        stages["admission"] = stages.get("admission", {}) | {"mode": admission.value}
    return stages
