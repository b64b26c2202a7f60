"""`extproc evaluate`: the policy and its rivals on simulated fleets, in virtual time."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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
    admission: Annotated[
        Admission, typer.Option(help="What layered does where all backends are saturated.")
    ] = Admission.REJECT,
    slo: Annotated[float, typer.Option(help="TTFT in seconds that is asked of a request.", min=0.001)] = 2.0,
    delay_limit: Annotated[
        float,
        typer.Option(
            help="Seconds by which a first token may come later than on the fastest idle machine.", min=0.0
        ),
    ] = 2.0,
    from_: Annotated[
        float,
        typer.Option(
            "--from",
            help="Count requests that arrive from then on only, in seconds.",
            min=0.0,
            metavar="SECONDS",
        ),
    ] = 0.0,
    judge_estimate: Annotated[
        bool,
        typer.Option("--judge-estimate", help="Hold the estimate of layered against the engines; slow."),
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="A model file for layer 2.", metavar="FILE", show_default="none")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a page with plots here.", metavar="FILE")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all numbers here.", metavar="FILE")] = None,
) -> None:
    """Compare the sidecar's policy with others on a simulated fleet, in virtual time.

    Equal seeds give equal results. A fleet is one of local, equal, one-slow, mixed-16, hidden-queue,
    failing, elastic, h100-70b, of engines of full size full-4, full-8, full-mixed-4, full-mixed-8 (two
    speeds), full-kinds, full-kinds-8 (three kinds of machines), or a list of machines
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

    Policies: layered (the sidecar's own), layered-no-model (the same without layer 2), round-robin, random,
    least-request (Envoy's), least-in-flight, peak-ewma (linkerd's), queue-kv (the endpoint picker's default:
    queue 2, KV cache 2, prefix 3), token-load and active-request (other scorers of its), least-latency
    (AIBrix's), token-load-affinity (the llm-d router's since August 2026), lmetric (new prompt tokens times
    batch size, arXiv 2603.15202), and the oracle, which looks into the future and is slow; shedding-oracle
    also refuses requests that would be late everywhere.

    A request is good if its first token came at most the delay limit later than it would have on the fleet's
    fastest idle machine, nothing cached; good is the share of all requests, refused and failed ones included.
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
        delay_limit_s=delay_limit,
        from_s=from_,
        is_estimate_judged=judge_estimate,
        model=model,
        out=out,
        json=json,
    )
    production = layered_rules({"admission": {"mode": admission.value}})
    evaluate_command.run_evaluation(options, production, Console())
