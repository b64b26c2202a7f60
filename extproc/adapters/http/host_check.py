"""Which names the sidecar's HTTP server may be asked by, over the loopback interface.

A page of the web can have a browser ask any address by a name of its own, and then read the answer: DNS
rebinding. That needs a name of the public DNS that leads to this machine, and a server that answers to any
name. So over loopback the server is asked by an address, by a name without a dot, by one of a domain that the
public DNS does not have, or by the name that it is configured to listen at. Over any other interface, where
Prometheus and probes come from, any name will do.
"""

import ipaddress
from urllib.parse import urlsplit

from extproc.fleet.endpoint import is_ip_address

_PRIVATE_DOMAINS = frozenset({"localhost", "local", "internal", "svc"})
"""RFC 6761, RFC 6762, reserved by ICANN, and Kubernetes' services."""


def is_host_accepted(host_header: str, local_address: str, own_host: str) -> bool:
    """Return whether a request with this `Host` may be answered on a connection to `local_address`."""
    if not _is_loopback(local_address) or not host_header:
        return True
    try:
        host = (urlsplit(f"//{host_header}").hostname or "").rstrip(".")
    except ValueError:
        return False
    return host == own_host.lower() or is_ip_address(host) or _is_private(host)


def _is_private(host: str) -> bool:
    return "." not in host or host.rpartition(".")[2] in _PRIVATE_DOMAINS


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
