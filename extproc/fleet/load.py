"""The load arithmetic: what is in flight on a backend, whoever sent it, and how much of it is running.

All functions are pure; what they are about is one backend.
"""


def foreign_load(running: float, waiting: float, largest_own: float) -> float:
    """Return the load that others put there: what the server holds beyond the most that was recently ours.

    The largest of the last second, because a request that has just ended is still counted by the server,
    and must not be taken for a foreign one.
    """
    return max(0.0, running + waiting - largest_own)


def running_now(running: float, change: float, load: float, limit: float, is_fresh: bool) -> float:
    """Estimate the requests that run now, from a gauge that is already old.

    The scraped value is corrected by the `change` of our own in flight since: sent less finished. It is
    never below the load, since a burst that the gauge has not seen is nevertheless there, and never above
    the server's own limit.
    """
    return min(limit, max(load, running + change) if is_fresh else load)
