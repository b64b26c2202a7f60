"""From rounds to a verdict: medians, ratios and ranges, each line of the budget with what was measured."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.overhead.arms import BESIDE, BESIDE_EMPTY, DIRECT, EMPTY, GRPCIO, MODEL, SIDECAR, THIN
from benchmarks.overhead.rounds import Background, Round

BUSY = 32
REQUEST_CHUNKS = 8  # of a request whose answer is a stream; it comes at once
MAX_CPU_RATIO = 3.0
MAX_MODEL_RATIO = 1.25
MAX_LATENCY_RATIO = 1.5
MAX_GRPCIO_LATENCY_RATIO = 0.5
MAX_CHUNK_CPU_S = 1e-6  # stands for "none measurable": under 1 % of a chunk's cost in a Python processor
MAX_SCRAPE_CPU_S = 300e-6
_ARMS = (DIRECT, *EMPTY.values(), *SIDECAR.values(), MODEL, BESIDE_EMPTY, BESIDE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the budget."""

    budget: str
    measured: str
    is_kept: bool


@dataclass(slots=True)
class Report:
    """All that a run measured."""

    settings: dict[str, Any]
    backgrounds: dict[str, Background] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)

    def of(self, arm: str, connections: int, chunks: int = 0) -> list[Round]:
        """The rounds of one kind, in order."""
        kind = (arm, connections, chunks)
        return [one for one in self.rounds if (one.arm, one.connections, one.chunks) == kind]

    def loads(self) -> list[tuple[int, int]]:
        """The connections and chunks that were tried with requests, the longer streams aside."""
        return sorted({(one.connections, one.chunks) for one in self.rounds if one.chunks <= REQUEST_CHUNKS})

    def streams(self, arm: str) -> list[Round]:
        """The rounds with long streams."""
        return [one for one in self.rounds if one.chunks > REQUEST_CHUNKS and one.arm == arm]

    def verdicts(self) -> list[Verdict]:
        """Each line of the budget that the run has numbers for."""
        found = [_placement(self.rounds)]
        if self.loads():
            found += [self._cpu(chunks) for chunks in (0, REQUEST_CHUNKS)]
            found += [self._cpu_with_model(), *self._latency()]
        for arm in SIDECAR.values():
            if streams := self.streams(arm):
                found.append(_cpu_per_chunk(arm, streams))
            scraping = self.backgrounds[arm]
            if scraping.scrape_cpu_s and self.settings["full_metrics"]:
                found.append(_cpu_per_scrape(arm, scraping))
        return found

    def _cpu(self, chunks: int) -> Verdict:
        ratios = _ratios(self.of(EMPTY[THIN], BUSY, chunks), self.of(SIDECAR[THIN], BUSY, chunks))
        what = "streams" if chunks else "plain answers"
        return _ratio_verdict(f"CPU, {what}, {BUSY} in flight: thin / empty thin", ratios, MAX_CPU_RATIO)

    def _cpu_with_model(self) -> Verdict:
        plain, asked = (self.of(arm, BUSY, REQUEST_CHUNKS) for arm in (SIDECAR[THIN], MODEL))
        what = f"CPU, streams, {BUSY} in flight: model asked / without"
        return _ratio_verdict(what, _ratios(plain, asked), MAX_MODEL_RATIO)

    def _latency(self) -> list[Verdict]:
        direct, thin = self.of(DIRECT, 1), self.of(SIDECAR[THIN], 1)
        budgets = ((EMPTY[THIN], MAX_LATENCY_RATIO), (SIDECAR[GRPCIO], MAX_GRPCIO_LATENCY_RATIO))
        return [
            _ratio_verdict(
                f"latency added, 1 in flight: thin / {arm}", _added(direct, self.of(arm, 1), thin), most
            )
            for arm, most in budgets
        ]

    def document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "settings": self.settings,
            "backgrounds": {arm: asdict(one) for arm, one in self.backgrounds.items()},
            "rounds": [asdict(one) for one in self.rounds],
            "verdicts": [asdict(one) for one in self.verdicts()],
        }


def _placement(rounds: list[Round]) -> Verdict:
    errors, unplaced = sum(one.errors for one in rounds), sum(one.unplaced for one in rounds)
    measured = f"{sum(one.requests for one in rounds):,} right, {errors} wrong, {unplaced} not placed"
    return Verdict("every request answered, and placed by its processor", measured, not errors + unplaced)


def _ratios(base: list[Round], arm: list[Round]) -> list[float]:
    """Round by round, because what else the machine does changes more slowly than the arms alternate."""
    return [b.server_cpu_s / a.server_cpu_s for a, b in zip(base, arm, strict=True)]


def _added(direct: list[Round], base: list[Round], arm: list[Round]) -> list[float]:
    """The latency that an arm adds, in proportion to what another one does."""
    return [
        (c.latency_p50_s - a.latency_p50_s) / (b.latency_p50_s - a.latency_p50_s)
        for a, b, c in zip(direct, base, arm, strict=True)
    ]


def _ratio_verdict(what: str, ratios: list[float], most: float) -> Verdict:
    ratio = statistics.median(ratios)
    return Verdict(f"{what}: ≤ {most}", f"{ratio:.2f} ({_range(sorted(ratios), '{:.2f}')})", ratio <= most)


def _cpu_per_chunk(arm: str, streams: list[Round]) -> Verdict:
    slopes_s = sorted(chunk_slopes_s(streams))
    slope_s = statistics.median(slopes_s)
    return Verdict(
        f"CPU per streamed chunk, {arm}: none, which is < {MAX_CHUNK_CPU_S * 1e6:.0f} µs",
        f"{slope_s * 1e6:.2f} µs ({_range([one * 1e6 for one in slopes_s], '{:.2f}')})",
        slope_s < MAX_CHUNK_CPU_S,
    )


def chunk_slopes_s(streams: list[Round]) -> list[float]:
    """Per round, what a chunk more adds to a stream's server CPU: short against long streams."""
    few, many = min(one.chunks for one in streams), max(one.chunks for one in streams)
    pairs = zip(
        (one for one in streams if one.chunks == few),
        (one for one in streams if one.chunks == many),
        strict=True,
    )
    return [(long.server_cpu_s - short.server_cpu_s) / (many - few) for short, long in pairs]


def _cpu_per_scrape(arm: str, scraping: Background) -> Verdict:
    return Verdict(
        f"CPU per scrape, {arm}, of 48 KB: ≤ {MAX_SCRAPE_CPU_S * 1e6:.0f} µs",
        f"{scraping.scrape_cpu_s * 1e6:.0f} µs at {scraping.busy_scrapes_per_s:.0f} a second",
        scraping.scrape_cpu_s <= MAX_SCRAPE_CPU_S,
    )


def print_report(report: Report, console: Console) -> None:
    """Tables of what was measured, then the verdicts."""
    settings = report.settings
    console.print(f"Python {settings['python']}; beside: {settings['beside']}", highlight=False)
    for connections, chunks in report.loads():
        console.print(_requests_table(report, connections, chunks))
    if report.streams(SIDECAR[THIN]):
        console.print(_streams_table(report))
    console.print(_background_table(report))
    table = Table("budget", "measured", "", title="Verdict")
    for verdict in report.verdicts():
        table.add_row(
            verdict.budget, verdict.measured, "[green]kept[/]" if verdict.is_kept else "[red]NOT KEPT[/]"
        )
    console.print(table)
    others = statistics.median(one.others_cores for one in report.rounds)
    console.print(
        f"Other work on the machine took {others:.2f} cores (median); at more than 0.2, measure again."
    )


def _requests_table(report: Report, connections: int, chunks: int) -> Table:
    columns = (
        "requests/s",
        "p50 ms",
        "added p50",
        "p99 ms",
        "server µs",
        "with scraping",
        "Envoy µs",
        "client µs",
    )
    what = f"streams of {chunks} chunks" if chunks else "plain answers"
    table = Table(title=f"{connections} in flight, {what}: medians of the rounds, CPU per request")
    for column in ("arm", *columns):
        table.add_column(column, justify="left" if column == "arm" else "right")
    direct_p50_s = _median(report.of(DIRECT, connections, chunks), "latency_p50_s")
    for arm in _ARMS:
        rounds = report.of(arm, connections, chunks)
        if not rounds:
            continue
        p50_s = _median(rounds, "latency_p50_s")
        cpu_s = [
            _median(rounds, name) * 1e6
            for name in ("server_cpu_s", "server_gross_cpu_s", "envoy_cpu_s", "client_cpu_s")
        ]
        table.add_row(
            arm,
            f"{_median(rounds, 'requests_per_s'):,.0f}",
            f"{p50_s * 1e3:.2f}",
            f"{(p50_s - direct_p50_s) * 1e3:+.2f}",
            f"{_median(rounds, 'latency_p99_s') * 1e3:.2f}",
            *(f"{one:.0f}" for one in cpu_s),
        )
    return table


def _streams_table(report: Report) -> Table:
    table = Table(title="Streams of one second: medians of the rounds, CPU per stream")
    for column in (
        "arm",
        "chunks",
        "streams/s",
        "server µs",
        "with scraping",
        "Envoy µs",
        "server µs per chunk",
    ):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm in (*EMPTY.values(), *SIDECAR.values()):
        streams = report.streams(arm)
        slope_us = statistics.median(chunk_slopes_s(streams)) * 1e6
        for chunks in sorted({one.chunks for one in streams}):
            rounds = [one for one in streams if one.chunks == chunks]
            cpu_s = [
                _median(rounds, name) * 1e6 for name in ("server_cpu_s", "server_gross_cpu_s", "envoy_cpu_s")
            ]
            table.add_row(
                arm,
                str(chunks),
                f"{_median(rounds, 'requests_per_s'):.1f}",
                *(f"{one:.0f}" for one in cpu_s),
                f"{slope_us:.2f}",
            )
    return table


def _background_table(report: Report) -> Table:
    table = Table(title="Servers without requests; busy: a silent stream is open on every backend")
    columns = ("idle, CPU ms/s", "scrapes/s", "busy, CPU ms/s", "scrapes/s", "µs per scrape")
    for column in ("arm", *columns):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm, one in report.backgrounds.items():
        table.add_row(
            arm,
            f"{one.idle_cpu_per_s * 1e3:.1f}",
            f"{one.idle_scrapes_per_s:.0f}",
            f"{one.busy_cpu_per_s * 1e3:.1f}",
            f"{one.busy_scrapes_per_s:.0f}",
            f"{one.scrape_cpu_s * 1e6:.0f}",
        )
    return table


def _median(rounds: list[Round], name: str) -> float:
    return statistics.median(float(getattr(one, name)) for one in rounds)


def _range(ascending: list[float], form: str) -> str:
    """The middle half of the rounds."""
    quarter = len(ascending) // 4
    return f"{form.format(ascending[quarter])} to {form.format(ascending[-1 - quarter])}"
