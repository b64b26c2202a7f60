"""The terms of the estimate, in seconds: what a decision compares, what is recorded of it, and what layer 2
sees.

`policy.expected_wait` computes them. A new term is a new field here, with 0 as its default: it becomes a
column of the samples and a feature of the model by itself.
"""

from typing import Annotated, NamedTuple

from msgspec import Meta

Term = Annotated[float, Meta(ge=-1e6, le=1e6)]
"""Seconds; no wait is longer than eleven days. The facts of a decision come back from outside."""


class ExpectedWait(NamedTuple):
    """The terms of the estimate, in seconds; all 0 where there is none."""

    own_prompt_s: Term = 0.0
    prompts_ahead_s: Term = 0.0
    turns_s: Term = 0.0
    crowding_s: Term = 0.0

    @property
    def wait_s(self) -> float:
        """The estimate less the request's own computing; the guard limits both terms, and the sum."""
        return self.prompts_ahead_s + self.turns_s

    @property
    def ttft_s(self) -> float:
        """The estimate."""
        return self.own_prompt_s + self.wait_s

    @property
    def score_s(self) -> float:
        """The estimate and the crowding: what least load compares."""
        return self.own_prompt_s + self.prompts_ahead_s + (self.turns_s + self.crowding_s)
