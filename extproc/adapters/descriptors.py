"""Open files and sockets: how many the process may have, and how they are shared out.

Connections to the sidecar's ports have a share each, so that neither can take the descriptors that the other
one needs, or that the scrapes and the sample store need.
"""

import resource

_WANTED = 65_536
"""Guessed: there are at most 4,096 scrapes at a time, and everything else is far below."""

GRPC_SHARE, MAX_GRPC = 0.5, 1024
"""Guessed: Envoy has one or two connections for each of its worker threads."""

HTTP_SHARE, MAX_HTTP = 0.25, 128
"""Guessed: some scrapers, probes, and live pages."""


def raise_descriptor_limit() -> None:
    """Raise the soft limit, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # some systems have a lower one of their own
            return


def share_of_descriptors(share: float, most: int) -> int:
    """Return how many connections a port may have: a share of the soft limit, at least one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(1, min(most, int(share * soft)))
