"""The usual length of a prompt in this fleet, and how long a longer one may wait for others.

Where a fleet gets more than it can compute, some requests have to be refused. One prompt of four times the
usual length takes the time of four others, so refusing it lets four more be answered in time: to serve the
shortest first is what makes the fewest late (Schrage, "A proof of the optimality of the shortest remaining
processing time discipline", 1968). Where nothing waits, a long prompt is not refused for being long.
"""

LEAST_SHARE = 0.5
"""Guessed: however long a prompt is, it may wait for half as long as others."""

LESS_WAIT = 0.15
"""Tried on recorded traffic: with 0.5 long prompts that could be served in time were refused as well."""

WEIGHT = 0.005
"""Guessed: the share of the newest prompt, which is some seconds of traffic in a busy fleet."""


class UsualPrompt:
    """The mean of the newest prompts that were sent, in `tokens` to compute; 0 until there was one."""

    __slots__ = ("_sent", "tokens")

    def __init__(self) -> None:
        self.tokens = 0.0
        self._sent = 0

    def sent(self, tokens: float) -> None:
        """Learn from a prompt with this many tokens to compute."""
        self._sent += 1
        self.tokens += max(1.0 / self._sent, WEIGHT) * (tokens - self.tokens)

    def wait_share(self, tokens: float) -> float:
        """Return the share of the longest wait that a prompt with this many tokens to compute may have."""
        if tokens <= self.tokens or not self.tokens:
            return 1.0
        return max(LEAST_SHARE, 1.0 / (1.0 + LESS_WAIT * (tokens / self.tokens - 1.0)))
