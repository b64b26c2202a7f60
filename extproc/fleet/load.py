"""The load arithmetic: what is in flight on a backend, whoever sent it, and how much of it is running.

All functions are pure; what they are about is one backend.
"""

from math import inf


def foreign_load(running: float, waiting: float, largest_own: float) -> float:
    """Load that others put there: what the server holds beyond the most that was recently our own.

    The largest of the last second, because a request that has just ended is still counted by the server,
    and must not be taken for a stranger's.
    """
    return max(0.0, running + waiting - largest_own)


def running_now(running: float, change: float, load: float, limit: float, is_fresh: bool) -> float:
    """An estimate of the running requests for now, from a gauge that is already old.

    The scraped value is corrected by the `change` of our own in flight since: sent less finished. It is
    never below the load, since a burst that the gauge has not seen is nevertheless there, and never above
    the server's own limit.
    """
    return min(limit, max(load, running + change) if is_fresh else load)


def pinned_limit(known_limit: float, running: float, waiting: float, smallest_own: float) -> float:
    """The server's limit of running requests, learned: what runs while others have to wait.

    They wait in the engine's queue, or before the engine, where only we know of them: more of our own were
    in flight for a whole second than the server admits to. inf until that was seen.
    """
    is_pinned = waiting > 0 or smallest_own > running + waiting
    if known_limit == inf:
        return running if is_pinned and running > 0 else inf
    return max(known_limit, running)
