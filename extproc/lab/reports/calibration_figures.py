"""The figures of a calibration as text, the same in the terminal and on the page."""

from extproc.lab.twin.agreement import Agreement, Figure


def shown_figures(agreement: Agreement) -> tuple[tuple[str, Figure], ...]:
    """Each with its title and unit."""
    token_s = agreement.token_s
    return (
        ("TTFT p50, s", agreement.ttft_p50_s),
        ("TTFT p90, s", agreement.ttft_p90_s),
        ("output tokens/s", agreement.tokens_per_s),
        ("ms per token", Figure(token_s.server * 1e3, token_s.twin * 1e3)),
    )


def figure_texts(figure: Figure) -> tuple[str, str, str]:
    """The server's, the twin's, the error."""
    return f"{figure.server:.3g}", f"{figure.twin:.3g}", f"{figure.error:+.1%}"
