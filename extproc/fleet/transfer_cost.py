"""How much longer a request takes whose prompt was prefilled on this server for another one: the transfer.

The keys and values of the prompt move over the network, and the request passes one hop more. How long that
takes is learned as a factor of a guess: the sum of what the first tokens took longer than predicted, by the
sum of what was guessed. So a server that is slower than its pace says, or that is reached by a slow network,
is used less. All is forgotten in time, and the server is tried again.
"""

from math import exp

from extproc.fleet.pace import FORGETTING_S, SURPRISE

BASE_S = 0.03
"""Guessed: one hop more, one HTTP request, and one iteration of either engine."""
TOKEN_S = 1e-5
"""Guessed: 100 KB of keys and values for each token, at 10 GB/s."""
PRIOR_S = 1.0
"""Guessed: the weight of the guess, in seconds of transfers."""


class TransferCost:
    """The transfers from one prefill server, slowly forgotten."""

    __slots__ = ("_guessed_s", "_known_at_s", "_longer_s")

    def __init__(self) -> None:
        self._guessed_s = self._longer_s = self._known_at_s = 0.0

    def expected_s(self, tokens: float, now_s: float) -> float:
        """Return what the transfer of this many tokens is expected to take."""
        return self.factor(now_s) * guessed_s(tokens)

    def factor(self, now_s: float) -> float:
        """Return what the guess is multiplied by, for any number of tokens."""
        kept = self._kept(now_s)
        return max(0.0, (PRIOR_S + kept * self._longer_s) / (PRIOR_S + kept * self._guessed_s))

    def learn(self, tokens: float, without_transfer_s: float, ttft_s: float, now_s: float) -> None:
        """Learn from a first token after `ttft_s`, which would have come without the transfer after
        `without_transfer_s`.

        One that is a surprise counts as a smaller one, as for the pace of a server.
        """
        kept = self._kept(now_s)
        self._known_at_s = max(self._known_at_s, now_s)
        longer_s = min(ttft_s - without_transfer_s, SURPRISE * (without_transfer_s + guessed_s(tokens)))
        self._longer_s = kept * self._longer_s + longer_s
        self._guessed_s = kept * self._guessed_s + guessed_s(tokens)

    def _kept(self, now_s: float) -> float:
        return exp(-max(0.0, now_s - self._known_at_s) / FORGETTING_S)


def guessed_s(tokens: float) -> float:
    """Return what a transfer takes as long as nothing is known of it."""
    return BASE_S + TOKEN_S * tokens
