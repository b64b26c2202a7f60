"""The lines of a command about a recorded trace: how it was played, and what of it is missing."""

from extproc.lab.traffic.trace import Trace


def played_lines(
    recorded: Trace, played: Trace, duration_s: float, capacity_per_s: float, max_model_len: int
) -> list[str]:
    """Describe what an evaluation played of a trace, at what rate and with which context."""
    rate = len(played) / duration_s
    line = (
        f"trace of {len(recorded):,} requests in {recorded.duration_s:,.0f} s; played: {len(played):,} in "
        f"{duration_s:,.0f} s, {rate:.2f} requests/s, {rate / capacity_per_s:.0%} of the capacity"
    )
    return [line, *missing_lines(recorded, played.longer_than(max_model_len), max_model_len)]


def missing_lines(trace: Trace, cut: int, max_model_len: int | None) -> list[str]:
    """Count the requests that were cut to the context, and those of the file that are not in the trace."""
    lines = []
    if cut:
        lines.append(
            f"{cut:,} request(s), longer than the context of {max_model_len:,} tokens, were cut to it"
        )
    if trace.failures:
        lines.append(f"{trace.failures:,} failed request(s) of the file were left out")
    if trace.is_cut:
        read = len(trace) + trace.failures
        lines.append(f"only the first {read:,} requests of the file were read")
    return lines
