"""The gain of a perfect model of layer 2, which is told the truth and trusted everywhere.

    python -m benchmarks.true_corrections --fleet full-kinds --workload trace:FILE@1.0 --seeds 2 --from 60

All options are those of `extproc evaluate`. `layered` corrects each estimate in the medium zone by the factor
by which it is off. That is known from a copy of the server, which runs until the request has its first token.
`layered-no-model` is the estimate alone. The last line has the mean absolute log error of the estimates that
were corrected. With several routers, each knows the requests of all.
"""

import sys
from math import log
from unittest.mock import patch

import numpy as np

from extproc.cli import main
from extproc.fleet.view import FleetView
from extproc.lab.rivals.choice import POLICIES, RivalSetting
from extproc.lab.rivals.layered import Layered
from extproc.lab.rivals.oracle import ttft_if_sent
from extproc.lab.rivals.policy import Candidates
from extproc.lab.traffic.arrivals import Arrival
from extproc.policy import decide
from extproc.policy.predictive import CorrectionModel

_COMPARED = ("--policies", "layered,layered-no-model", "--model-file", "models/zone2_predictor.json")


class _Informed(Layered):
    """The production policy, whose model looks into the servers; the model file only switches layer 2 on."""

    deciding: "_Informed"
    errors: list[float] = []  # noqa: RUF012  # one list for the run

    def __init__(self, setting: RivalSetting) -> None:
        names = [server.spec.name for server in setting.servers]
        super().__init__(names, setting.layered, setting.rng)
        self._servers = dict(zip(names, setting.servers, strict=True))
        self._numbers = {name: number for number, name in enumerate(names)}

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int | None:
        """Keep the request, which the true corrections are about."""
        _Informed.deciding, self._request, self._asked_s = self, request, now_s
        return super().choose(request_id, request, candidates, now_s)

    def true_corrections(self, view: FleetView) -> dict[int, float]:
        """Return log(ttft / estimate) of each candidate, by its number, and have all of them trusted."""
        estimates_s, found = self.estimates_s(self._request, self._asked_s), {}
        for number, backend in enumerate(view.backends):
            estimate_s = estimates_s.get(self._numbers[backend.name], 0.0)
            if estimate_s > 0:
                ttft_s = ttft_if_sent(self._servers[backend.name], self._request, self._asked_s)
                found[number] = log(ttft_s / estimate_s)
                backend.predictions.is_trusted = True
        self.errors += map(abs, found.values())
        return found


def _corrections(view: FleetView, input_tokens: float, model: CorrectionModel) -> dict[int, float]:
    return _Informed.deciding.true_corrections(view)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "evaluate", *_COMPARED, *sys.argv[1:]]
    with patch.dict(POLICIES, layered=_Informed), patch.object(decide, "corrections", _corrections):
        try:
            main()
        finally:
            if _Informed.errors:
                print(f"mean absolute log error of what was corrected: {np.mean(_Informed.errors):.3f}")
