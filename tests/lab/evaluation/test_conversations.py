from collections.abc import Sequence
from dataclasses import replace

from msgspec.structs import replace as with_fields
from support.evaluated_scenarios import CONTEXT, scenario, watched

from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.rivals.layered import Layered
from extproc.lab.rivals.policy import Candidate
from extproc.lab.traffic.arrivals import Arrival, Steady
from extproc.lab.traffic.conversations import Conversations
from extproc.lab.traffic.workload import Lognormal, Workload

TURNS = Conversations(
    curve=Steady(),
    rate=6.0,
    duration_s=100.0,
    turns=6.0,
    pause_s=10.0,
    shared_tokens=800,
    kinds=8,
    lengths=Workload(Lognormal(150, 0.6), Lognormal(80, 0.5)),
    max_model_len=CONTEXT,
)
SCENE = replace(scenario("4xa100-8b*0.6:12:32768"), traffic=TURNS)


class WithoutPrefixAffinity(Layered):
    """The production policy, which gets requests without the content of their prompts."""

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        return super().choose(request_id, with_fields(request, content=()), candidates, now_s)


def test_prefix_affinity_shortens_ttft_in_conversations() -> None:
    aware = evaluate(SCENE, "layered", seed=3)
    unaware, _ = watched(WithoutPrefixAffinity, SCENE, seed=3)
    assert aware.mean_ttft_s is not None
    assert unaware.mean_ttft_s is not None
    assert aware.mean_ttft_s < 0.85 * unaware.mean_ttft_s
