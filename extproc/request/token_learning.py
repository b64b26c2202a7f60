"""Which backend's counter teaches which model's tokens per byte: one window per backend, by slot."""

from collections import defaultdict

from extproc.request.api import OTHER
from extproc.request.request import Request
from extproc.request.token_ratio import CounterWindow, TokenRatios


class TokenLearning:
    """Told what is sent, what ends, what fails and what the counters say; the ratios learn from it."""

    def __init__(self, ratios: TokenRatios) -> None:
        self._ratios = ratios
        self._windows: defaultdict[int, CounterWindow] = defaultdict(CounterWindow)

    def sent(self, slot: int, request: Request) -> None:
        """A request was placed on the backend; of unknown APIs nobody knows what becomes tokens."""
        if request.has_body:
            model = None if request.api is OTHER else request.model
            self._windows[slot].sent(model, request.input_size)

    def finished(self, slot: int, request: Request) -> None:
        """Its exchange has ended; that it failed is learned later, if so."""
        if request.has_body:
            self._windows[slot].finished(request.input_size, was_processed=True)

    def distrust(self, slot: int) -> None:
        """A request has failed: the server may not have counted it."""
        self._windows[slot].spoil()

    def scraped(self, slot: int, prompt_tokens_total: float | None, foreign: float) -> None:
        """The backend's own count of prompt tokens, if it has one, and the load that others put there."""
        if prompt_tokens_total is None:
            return
        sample = self._windows[slot].counter(prompt_tokens_total, foreign)
        if sample is not None:
            self._ratios.learn(sample.model, sample.tokens, sample.text_bytes)
