"""Where `guard.max_active: auto` settles in the twin, against the true knee of each machine.

    python -m benchmarks.limits

The knee is that of a broken stick through the median TTFT of one machine with a fixed number of requests in
flight, which knows nothing of the limit. What is settled is the second half of a run: its median, and its
middle 90 %.
"""

from unittest import mock

import numpy as np
from rich.console import Console
from rich.table import Table

from extproc import rules
from extproc.config import Config
from extproc.evaluation import evaluator
from extproc.evaluation.capacity import capacities_per_s
from extproc.evaluation.evaluator import Scenario, evaluate
from extproc.evaluation.fleet_text import parse_fleet
from extproc.evaluation.policies.choice import Setting
from extproc.evaluation.policies.layered import Layered, LayeredRules
from extproc.evaluation.policies.policy import Ended
from extproc.evaluation.server import Server, ServerSpec
from extproc.evaluation.workload_text import TraceSpec, WorkloadSpec, parse_workload
from extproc.learning.analysis.broken_stick import Medians, fit_stick

FLEETS = {
    "equal": "3xa100-8b*1:8:16384",
    "unequal": "a100-8b*1:8:16384,a100-8b*0.6:8:16384,a100-8b*0.35:8:16384",
    "64": "a100-8b*1:64",
    "256": "a100-8b*1:256",
    "KV": "a100-8b*1:256:16384",
}
CHAT = "prompt=lognormal:250:0.9 output=lognormal:64:0.5"
TWO_CLASS = "prompt=mix:100:4000:0.1 output=lognormal:64:0.5"
LOADS = (0.7, 0.95, 1.3)
DURATION_S = 400.0
CONTEXT = 8192
LONGEST = 2.0
SEED = 2
"""Not the one with which the constants of the algorithm were chosen."""


def workload(load: float, lengths: str) -> WorkloadSpec | TraceSpec:
    """Poisson arrivals at this share of the capacity; no files are read."""

    def no_file(*_: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        raise FileNotFoundError

    return parse_workload(f"poisson:{load}x {lengths} for={DURATION_S}", no_file, no_file)


def closed_loop(spec: ServerSpec, lengths: str, in_flight: int) -> tuple[float, float]:
    """The median TTFT, and the mean of running requests, with so many always in flight."""
    server = Server(spec)
    requests = workload(1.0, lengths).sample(max(800, 12 * in_flight), CONTEXT, np.random.default_rng(0))
    sent_s: list[float] = []
    ttft_s: dict[str, float] = {}
    running: list[int] = []

    def send(now_s: float) -> None:
        request = requests[len(sent_s)]
        server.submit(str(len(sent_s)), request.prompt_tokens, request.output_tokens, now_s, request.content)
        sent_s.append(now_s)

    for _ in range(in_flight):
        send(0.0)
    while len(sent_s) < len(requests) and (now_s := server.run_ends_s) is not None:
        result = server.end_run(now_s)
        for number in result.begun:
            ttft_s.setdefault(number, now_s - sent_s[int(number)])
        for _ in result.finished[: len(requests) - len(sent_s)]:
            running.append(server.engine.running)
            send(now_s)
    settled = len(requests) // 4
    late = [each_s for number, each_s in ttft_s.items() if int(number) >= settled]
    return float(np.median(late)), float(np.mean(running[len(running) // 2 :]))


def knee(spec: ServerSpec, lengths: str) -> float:
    """The load at which the broken stick through the medians bends."""
    _, most = closed_loop(spec, lengths, 512)
    shares = np.concatenate(
        [np.linspace(0.2, 0.9, 8), np.linspace(0.94, 1.3, 10), np.linspace(1.4, LONGEST, 4)]
    )
    loads = sorted({max(1, round(most * share)) for share in shares.tolist()})
    ttft_s = [closed_loop(spec, lengths, load)[0] for load in loads]
    fitted = fit_stick(Medians(np.array(loads, float), np.array(ttft_s), np.ones(len(loads))), 1 / 3)
    if fitted is None:
        raise ValueError(f"no knee in {spec}")
    return fitted[0].knee


def limits(fleet: str, load: float, lengths: str, mode: str) -> tuple[np.ndarray, float]:
    """The limits of all backends at every answer of the second half, and the share of requests refused."""
    specs = parse_fleet(fleet)
    chat = workload(load, lengths)
    capacities = capacities_per_s(specs, chat.sample, CONTEXT)
    document = {"guard": {"max_active": "auto"}, "admission": {"mode": mode}}
    config = Config.model_validate({"backends": ({"name": "sim", "url": "http://127.0.0.1:1"},)} | document)
    fleet_rules = rules.fleet_rules(
        config.guard, config.breaker, config.scrape, config.zones, config.admission
    )
    layered = LayeredRules(
        fleet_rules, rules.router_rules(config), rules.trust_rule(config.predict), None,
        rules.queue_rules(config.admission),
    )  # fmt: skip
    scenario = Scenario(specs, capacities, chat.traffic(CONTEXT, sum(capacities)), 1, 0.1, 0.3, 2.0, layered)
    seen: list[list[int]] = []

    class Watched(Layered):
        def ended(self, request: Ended, now_s: float) -> None:
            super().ended(request, now_s)
            if DURATION_S / 2 <= now_s < DURATION_S:
                seen.append(self.limits)

    def make(setting: Setting) -> Layered:
        return Watched([server.spec.name for server in setting.servers], setting.layered, setting.rng)

    with mock.patch.object(evaluator, "POLICIES", {"watched": make}):
        result = evaluate(scenario, "watched", SEED)
    return np.array(seen), result.refused / result.requests


def main() -> None:
    """Print the table."""
    table = Table("fleet", "admission", "load", "backend", "knee", "settled", "5 % to 95 %", "off", "refused")
    cases = [(name, fleet, CHAT) for name, fleet in FLEETS.items()]
    cases.append(("64, two-class", FLEETS["64"], TWO_CLASS))
    for name, fleet, lengths in cases:
        specs = parse_fleet(fleet)
        known = {
            spec.profile.speed: knee(spec, lengths) for spec in {s.profile.speed: s for s in specs}.values()
        }
        for mode in ("reject", "queue"):
            for load in LOADS:
                seen, refused = limits(fleet, load, lengths, mode)
                for backend, spec in enumerate(specs):
                    low, middle, high = np.quantile(seen[:, backend], [0.05, 0.5, 0.95])
                    at = known[spec.profile.speed]
                    table.add_row(
                        name, mode, f"{load:g}", spec.name, f"{at:.1f}", f"{middle:.0f}",
                        f"{low:.0f} to {high:.0f}", f"{middle / at - 1:+.0%}", f"{refused:.0%}",
                    )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
