"""`python -m benchmarks.scrape`: CPU time of reading one `/metrics` text of the size that vLLM prints.

Only the parsing: a whole scrape, HTTP included, is measured by `benchmarks.overhead --full-metrics`. Beside
it stands the general parser of prometheus-client, for what searching the bytes saves.
"""

import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks.exposition import vllm_exposition
from benchmarks.timing import cpu_us
from extproc.fleet.exposition import read_signals

BUDGET_US = 300


def main() -> None:
    """Time the parsing, and hold it against the budget of a scrape; status 2 where that is not kept."""
    text = vllm_exposition("bench", running=7, waiting=3, kv_cache_fraction=0.25)
    signals = read_signals(text)
    if signals is None or (signals.running, signals.waiting, signals.kv_cache_fraction) != (7, 3, 0.25):
        raise RuntimeError(f"the text was not read right: {signals}")
    ours_us = cpu_us(lambda: read_signals(text))
    general_us = cpu_us(lambda: list(text_string_to_metric_families(text.decode())), batches=20)
    table = Table(
        "reader", "CPU µs", f"budget of a scrape: {BUDGET_US} µs", title=f"{len(text):,} bytes of /metrics"
    )
    is_kept = ours_us <= BUDGET_US
    table.add_row("extproc", f"{ours_us:.0f}", "[green]kept[/]" if is_kept else "[red]NOT KEPT[/]")
    table.add_row("prometheus-client, everything", f"{general_us:,.0f}", "")
    Console().print(table)
    if not is_kept:
        raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(main)
