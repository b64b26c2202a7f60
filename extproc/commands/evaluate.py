"""`extproc evaluate`: the policy and its rivals on simulated fleets, in virtual time."""

from extproc.commands.evaluate_options import EvaluateOptions
from extproc.config.options import takes_options
from extproc.errors import ReportError


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
    all earlier turns. With adapters=COUNT:SKEW each is for one of COUNT adapters, the n-th of which is
    as popular as 1 / n ** SKEW.

    Or a workload is a recorded trace, "trace:FILE[@LOAD] [for=SECONDS]". The file is one of Azure's CSV
    files (TIMESTAMP, ContextTokens, GeneratedTokens), of BurstGPT's CSV files, of Mooncake's JSONL files,
    whose prompts share prefixes, or a CSV file with at_s, prompt_tokens, output_tokens. With @LOAD the trace
    is stretched or compressed in time, bursts included, until its mean rate is that share of what the fleet
    can answer. With for=SECONDS it ends after that time of the simulation.

    Policies: layered (the sidecar's own), layered-no-model (the same without layer 2), layered-no-reports
    (without reports between routers), layered-no-adapters (without affinity to adapters), round-robin,
    random, least-request (Envoy's), least-in-flight, peak-ewma (linkerd's), queue-kv (the endpoint picker's
    default: queue 2, KV cache 2, prefix 3), token-load and active-request (two more of its scorers),
    least-latency (AIBrix's), token-load-affinity (the llm-d router's since August 2026), lmetric (new prompt
    tokens times batch size, arXiv 2603.15202), and the oracle, which looks into the future and is slow;
    shedding-oracle also refuses requests that would be late everywhere. From a --config, layered takes the
    stages guard, breaker, predict, least_load, zones, scrape and admission.

    Nothing goes wrong in this world, except with --ttft-noise, --speed-noise, --stalls, --frozen-gauges and
    --cold-start. With --retries clients come back as those of OpenAI do: after
    Retry-After, or without it after half a second, a second and so on, less up to a quarter. All attempts
    are one request, whose times count from the first; it is refused if the last attempt is.

    A request is good if its first token came at most the delay limit later than it would have on the fleet's
    fastest idle machine, nothing cached; good is the share of all requests, refused and failed ones included.
    """
    from rich.console import Console

    from extproc.adapters.files.atomic_file import write_json, write_or_raise
    from extproc.commands.evaluate_setup import evaluated, scenario_of, trace_lines
    from extproc.commands.evaluate_view import comparison_table, heading, remarks

    console = Console()
    scenario, workload, offered = scenario_of(options)
    evaluation = evaluated(options, scenario, offered, console)
    console.print(heading(evaluation), soft_wrap=True, highlight=False, markup=False, emoji=False)
    for line in trace_lines(workload, offered):
        console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(comparison_table(evaluation))
    console.print(*remarks(evaluation), sep="\n", soft_wrap=True, highlight=False, markup=False)
    if options.json is not None:
        write_json(options.json, evaluation, ReportError)
    if options.page is not None:
        from extproc.lab.reports.evaluation_page import evaluation_page  # it takes seconds to import

        write_or_raise(options.page, evaluation_page(evaluation), ReportError)
