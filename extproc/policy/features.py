"""The features of layer 2: their order, their direction, and how they are laid out for the model.

This is the one list that serving, recording and training share; a model file carries it, and a file with
another list is refused.
"""

import numpy as np
import numpy.typing as npt

FEATURES: tuple[str, ...] = ("num_running", "load", "num_waiting", "kv_cache_fraction", "input_tokens")
"""Per candidate at the decision: the estimate of running requests for now, own + foreign load, the scraped
waiting requests, the scraped share of KV cache in use, and the request's input length in tokens."""

MONOTONE: tuple[int, ...] = (1, 1, 0, 0, 1)
"""+1: a larger value never predicts a shorter TTFT. Waiting and KV usage lag too much to promise that."""
