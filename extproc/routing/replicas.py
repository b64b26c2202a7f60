"""The prompts that other sidecars before the same backends have sent there, as they report them.

Gauges show a request of another sidecar 0.3 to 0.5 s late, and its length never: a prompt of 100,000 tokens
looks like one of 100. So each sidecar reports every prompt that it sends, with the tokens to be computed,
and its end. A report moves the estimate of the wait and nothing else: not the load, no limit, nothing that
is learned. Reports may be lost, late or repeated. The next scrape corrects what they leave behind, as it
does for own prompts (`fleet.prefill_backlog`), and what a replica has reported is forgotten when it has been
silent for `SILENT_AFTER_S`.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from extproc.fleet.backend import Backend
from extproc.fleet.registry import Registry

SILENT_AFTER_S = 3.0
"""Guessed: three times as long as a replica without requests is silent."""
MAX_UNSENT = 4096
"""Guessed: reports beyond that which wait to be sent are stale, and the oldest are dropped."""
MAX_OPEN = 4096
"""Guessed: of one replica, the prompts that are not computed yet; of more the oldest are forgotten."""
MAX_TOKENS = float(1 << 24)
"""No prompt is longer than the longest context of any model; a replica that reports one is not believed."""


class Report(msgspec.Struct, frozen=True, array_like=True):
    """A prompt that was sent to `backend` with `tokens` to compute; without a backend one that has ended."""

    number: int
    backend: str | None = None
    tokens: float = 0.0


@dataclass(slots=True, eq=False)
class _Prompt:
    """The key of a foreign prompt on its backend: two replicas may have the same number."""

    backend: Backend


@dataclass(slots=True)
class _Replica:
    heard_at_s: float
    open: OrderedDict[int, _Prompt] = field(default_factory=OrderedDict)


class Replicas:
    """The reports of this sidecar that are to be sent, and what it has heard from the others."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._unsent: deque[Report] = deque(maxlen=MAX_UNSENT)
        self._replicas: dict[str, _Replica] = {}

    def __len__(self) -> int:
        """Return how many replicas were heard from lately."""
        return len(self._replicas)

    def sent(self, number: int, backend: Backend, tokens: float) -> None:
        """Report a prompt that is sent to a backend from now on."""
        self._unsent.append(Report(number, backend.name, tokens))

    def ended(self, number: int) -> None:
        """Report that a request has ended, however it did."""
        self._unsent.append(Report(number))

    def take(self) -> list[Report]:
        """Return what is to be sent to all others, and forget it."""
        reports = list(self._unsent)
        self._unsent.clear()
        return reports

    def heard(self, name: str, reports: Iterable[Report], now_s: float) -> None:
        """Take in the reports of the replica of that name; an empty one says that it is there."""
        replica = self._replicas.setdefault(name, _Replica(now_s))
        replica.heard_at_s = now_s
        for report in reports:
            if report.backend is None:
                self._close(replica, report.number)
            elif 0.0 <= report.tokens <= MAX_TOKENS:
                self._open(replica, report, now_s)

    def review(self, now_s: float) -> None:
        """Forget the prompts of replicas that have fallen silent."""
        silent = [name for name, each in self._replicas.items() if now_s - each.heard_at_s > SILENT_AFTER_S]
        for name in silent:
            replica = self._replicas.pop(name)
            for number in list(replica.open):
                self._close(replica, number)

    def _open(self, replica: _Replica, report: Report, now_s: float) -> None:
        backend = self._registry.backend_named(report.backend or "")
        if backend is None or report.number in replica.open:
            return
        prompt = replica.open[report.number] = _Prompt(backend)
        backend.expect_prompt(prompt, report.tokens, now_s)
        if len(replica.open) > MAX_OPEN:
            self._close(replica, next(iter(replica.open)))

    def _close(self, replica: _Replica, number: int) -> None:
        prompt = replica.open.pop(number, None)
        if prompt is not None:
            prompt.backend.give_back_prompt(prompt)
