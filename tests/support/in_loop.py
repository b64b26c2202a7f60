"""Tests that are coroutines: each has an event loop of its own, as the server runs in."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import uvloop


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run the test in a loop of uvloop."""

    @wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        uvloop.run(test(*args, **fixtures))

    return run
