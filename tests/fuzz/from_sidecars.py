"""What other sidecars send and leave behind: reports of their prompts, and blocks of samples."""

import math
import time
import zlib
from functools import cache

from support.build import a_core, core_rules, endpoints

from extproc.adapters.files.sample_rows import _HEAD, _MAGIC, unpacked
from extproc.adapters.replica_link import ReplicaLink
from extproc.config.replicas_stage import ReplicasConfig
from extproc.outcomes.facts import Sample
from extproc.routing.core import Core

HOST = "127.0.0.1"


def reports(data: bytes) -> None:
    """A datagram from an address of theirs: it raises nothing, and the estimate stays a time."""
    core, link = _linked()
    link.datagram_received(data, (HOST, 9004))
    assert all(math.isfinite(backend.prefilled_at_s) for backend in core.registry.members)


@cache
def _linked() -> tuple[Core, ReplicaLink]:
    core = a_core(endpoints(2), core_rules(has_replicas=True))
    assert core.replicas is not None
    for backend in core.registry.members:
        backend.prefilled_at_s = time.monotonic()
    link = ReplicaLink(ReplicasConfig(hosts=(HOST,)), core.replicas, 1)
    link._addresses = frozenset({HOST})
    return core, link


def sample_rows(data: bytes) -> None:
    """Blocks of samples as they stand, and as the payload of a block that has a good checksum."""
    for written in (data, _HEAD.pack(_MAGIC, len(data), zlib.crc32(data)) + data):
        for limit, samples in unpacked(written):
            assert limit >= 1
            assert all(isinstance(sample, Sample) for sample in samples)
