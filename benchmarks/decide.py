"""`python -m benchmarks.decide`: CPU time of a decision, by size of the fleet and by layer.

Timed is what stands between a request and its backend: looking at the fleet, or at the contenders of a large
one (`view`), with what of the prompt is expected to be where, and `decide()`, on the production code, with a
model of the largest size that training makes. The request is a turn of a conversation: all backends have its
system prompt, one has more.
Reserving and releasing come on top, and are shown by themselves, as are finding what is expected
(which is in `view`) and noting what was sent.
"""

from datetime import UTC, datetime

import lightgbm
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.timing import cpu_us
from extproc.config.rules import core_rules_of_stages
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet import Fleet
from extproc.fleet.prediction_record import PredictedOutcome, RankRecord
from extproc.fleet.signals import Signals
from extproc.fleet.view import FleetView
from extproc.learning.features import FEATURES, ZoneBounds
from extproc.learning.manifest import (
    FORMAT_VERSION,
    TARGET,
    HeldOutErrors,
    Manifest,
    SampleCounts,
    Verdict,
)
from extproc.learning.predictor import Predictor
from extproc.learning.trees import MAX_LEAVES, MAX_TREES, trees_of
from extproc.policy.decide import decide
from extproc.policy.decision import Layer
from extproc.request.api import CHAT
from extproc.request.body_facts import InputSize
from extproc.request.request import Request
from extproc.routing.contenders import contenders

BUDGET_US = {16: 20, 100: 50, 1000: 500}  # design, section 10
MODEL_BUDGET_US = 25
_LOADS = {Layer.LEAST_LOAD: (2, 4), Layer.PREDICT: (5, 10)}  # in flight per backend: low zone, medium zone
_AHEAD_TOKENS = {Layer.LEAST_LOAD: 0.0, Layer.PREDICT: 12_000.0}  # so that those in the medium zone wait
_PLACES = 8
_RULES = core_rules_of_stages({})  # the defaults
_NOW_S = 1000.0
_SYSTEM_PROMPT = (1, 2, 3, 4)
_TURN = (*_SYSTEM_PROMPT, 5, 6, 7, 8, 9)


def _request() -> Request:
    return Request(
        api=CHAT,
        path=CHAT.path,
        model="bench",
        is_stream=True,
        input_size=InputSize(text_bytes=4096),
        input_tokens=1024,
        token_limit=256,
        priority=0,
        body_bytes=5000,
        has_body=True,
        prefix=_TURN,
        prompt_bytes=4900,
    )


def _fleet(backends: int, layer: Layer, rng: np.random.Generator) -> Fleet:
    """A fleet under a load at which this layer decides: own requests, and a few that are foreign."""
    fleet = Fleet(_RULES.fleet)
    for number, own in enumerate(rng.integers(*_LOADS[layer], backends)):
        backend = fleet.join(Endpoint(f"vllm-{number}", "127.0.0.1", 8000, max_num_seqs=_PLACES))
        for _ in range(own):
            backend.reserve(_NOW_S - 5)
        signals = Signals(
            running=float(min(own, _PLACES)),
            waiting=float(max(0, own - _PLACES) + rng.integers(0, 3)),
            kv_cache_fraction=0.3,
            prompt_tokens_total=None,
            generation_tokens_total=None,
        )
        backend.scraped(signals, int(own), _NOW_S - 0.05)
        backend.expect_prompt(number, _AHEAD_TOKENS[layer], _NOW_S)
        fleet.prefixes.sent(backend, (*_SYSTEM_PROMPT, 100 + number), 500.0, 0.0)
    fleet.prefixes.sent(fleet.backends[-1], _TURN[:-2], 500.0, 0.0)
    fleet.review(_NOW_S)  # they have joined long ago
    return fleet


def _predictor(rng: np.random.Generator) -> Predictor:
    """A model of the largest size, of estimates that are wrong by something of everything."""
    rows = rng.random((5000, len(FEATURES))) * np.array([100.0, 100.0, 100.0, 1.0, 8192.0, *[5.0] * 4])
    target = np.log1p(rows @ rng.random(len(FEATURES)) / 1e5) + 0.1 * rng.random(5000)
    parameters = {
        "objective": "regression",
        "num_leaves": MAX_LEAVES,
        "use_missing": False,
        "num_threads": 1,
        "verbose": -1,
        "seed": 1,
    }
    booster = lightgbm.train(
        parameters, lightgbm.Dataset(rows, target, feature_name=list(FEATURES)), num_boost_round=MAX_TREES
    )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model_version="bench",
        features=FEATURES,
        target=TARGET,
        zone_bounds=ZoneBounds(1.0, 10.0),
        held_out_errors=HeldOutErrors(0.1, 0.9, 0.1, 0.12, 0.9),
        samples=SampleCounts(5000, 0),
        trained_at=datetime.now(UTC).isoformat(),
        verdict=Verdict(True, "", 0.12, 0.2, None, None, 0.05, 5000),
    )
    return Predictor(manifest, trees_of(booster))


def _trust(fleet: Fleet, version: str) -> None:
    """Have the model be right so often that it is heeded on every backend."""
    ranking = RankRecord()
    for backend in fleet.backends:
        backend.predictions.begin(version, ranking)
        for _ in range(_RULES.policy.predict.min_outcomes):
            backend.predictions.observe(version, PredictedOutcome(backend.name, 0.0, 100.0, 0.0, 0.0, 1.0))


def _row(backends: int, layer: Layer, model: Predictor, rng: np.random.Generator) -> list[float]:
    fleet, request, rules = _fleet(backends, layer, rng), _request(), _RULES.policy
    candidates, prefixes = tuple(fleet.backends), fleet.prefixes
    _trust(fleet, model.manifest.model_version)

    def look() -> FleetView:
        looked_at = contenders(candidates, fleet, request, rng)
        return fleet.view(looked_at, _NOW_S, prefixes.cached_tokens(request, looked_at))

    view = look()
    found = decide(request, view, model, rules, rng)
    if found.layer is not layer:
        raise RuntimeError(f"the {layer} layer was to be timed, and {found.layer} decided: {found.reason}")
    first = candidates[0]

    def reserve_and_release() -> None:
        first.reserve(_NOW_S)
        first.release(_NOW_S)

    return [
        cpu_us(look),
        cpu_us(lambda: decide(request, view, model, rules, rng)),
        cpu_us(lambda: decide(request, look(), model, rules, rng)),
        cpu_us(reserve_and_release),
        cpu_us(lambda: prefixes.cached_tokens(request, view.backends)),
        cpu_us(lambda: prefixes.sent(first, _TURN, 0.0, 0.0)),
    ]


def main() -> None:
    """Time decisions, and hold them against the budget; status 2 where it is not kept."""
    rng = np.random.default_rng(1)
    model = _predictor(rng)
    table = Table(title="CPU µs of one decision")
    for column in (
        "backends",
        "layer",
        "view",
        "decide",
        "both",
        "budget",
        "",
        "reserve + release",
        "expected",
        "sent",
    ):
        table.add_column(column, justify="left" if column in {"layer", ""} else "right")
    is_kept = True
    for backends, placing_us in BUDGET_US.items():
        for layer in _LOADS:
            view_us, decide_us, both_us, *others_us = _row(backends, layer, model, rng)
            budget_us = placing_us + (MODEL_BUDGET_US if layer is Layer.PREDICT else 0)
            is_kept &= both_us <= budget_us
            verdict = "[green]kept[/]" if both_us <= budget_us else "[red]NOT KEPT[/]"
            times = [f"{one:.1f}" for one in (view_us, decide_us, both_us)]
            others = [f"{one:.1f}" for one in others_us]
            table.add_row(str(backends), layer.value, *times, str(budget_us), verdict, *others)
    Console().print(table)
    if not is_kept:
        raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(main)
