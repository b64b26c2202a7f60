"""Names for backends that nobody has named: they become names of Envoy's clusters, and labels of metrics.

They say where a backend is, and are the same in every sidecar and after every restart. They are kept, since
the same ones are made again at every answer.
"""

import hashlib
import ipaddress
import re
from functools import lru_cache

from extproc.fleet.bounds import MAX_BACKEND_NAME

_HASH_CHARACTERS = 8
_MAX_PREFIX = 20
_MAX_KEPT = 8192
_SIDECAR_CLUSTER = "extproc"


@lru_cache(maxsize=_MAX_KEPT)
def name_of_address(prefix: str, address: str) -> str:
    """`vllm` and 10.0.0.7 make `vllm-10-0-0-7`; only the first label of a longer prefix is taken."""
    label = re.sub(r"[^A-Za-z0-9]+", "-", prefix.partition(".")[0])[:_MAX_PREFIX].strip("-")
    digits = ipaddress.ip_address(address).exploded.replace(":", "-").replace(".", "-")
    return f"{label}-{digits}" if label else f"backend-{digits}"


@lru_cache(maxsize=_MAX_KEPT)
def name_of_pod(pod: str) -> str:
    """The pod's name, where it can be a cluster's; else as much of it as can, and a hash."""
    name = re.sub(r"[^A-Za-z0-9-]", "-", pod).strip("-")
    if name == pod and len(name) <= MAX_BACKEND_NAME and name != _SIDECAR_CLUSTER:
        return name
    digest = hashlib.sha256(pod.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{name[: MAX_BACKEND_NAME - _HASH_CHARACTERS - 1]}-{digest}".lstrip("-")
