"""The features of layer 2: their order, their direction, and how they are laid out for the model.

This is the one list that serving, recording and training share; a model file carries it, and a file with
another list is refused.
"""

FEATURES: tuple[str, ...] = ("num_running", "load", "num_waiting", "kv_cache_fraction", "input_tokens")
"""Per candidate at the decision: the estimate of running requests for now, own + foreign load, the scraped
waiting requests, the scraped share of KV cache in use, and the request's input length in tokens."""

MONOTONE: tuple[int, ...] = (1, 1, 0, 0, 1)
"""+1: a larger value never predicts a shorter TTFT. Waiting and KV usage lag too much to promise that."""

RANGE_SLACK: tuple[float, ...] = (1.0, 1.0, 8.0, 0.15, 16.0)
"""How far beyond its trained range a feature may at least lie, in its own unit, for the model to be asked.
Tight for what carries the prediction. Wide for waiting and KV usage: they lag, and a model that never saw a
waiting request still knows the load. All guessed."""

LARGEST: tuple[float, ...] = (1e5, 1e5, 1e5, 1.0, 1e8)
"""What no feature exceeds on a real server; a larger or negative value in a sample is garbage."""
