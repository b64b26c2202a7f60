"""The figures of one policy on one seed, for tests to change."""

from extproc.lab.evaluation.result import QUANTILES, PolicyRun

RUN = PolicyRun(
    policy="random",
    seed=1,
    requests=100,
    refused=10,
    failed=0,
    attempts=100,
    retried=None,
    duration_s=60.0,
    goodput=0.8,
    good=0.7,
    ttft_quantiles_s=QUANTILES,
    delay_quantiles_s=tuple(share / 2 for share in QUANTILES),
    mean_ttft_s=0.5,
    fairness=0.9,
    utilisation=0.7,
    backends=(),
    decisions={},
    layer_shares={},
    estimate=None,
)
