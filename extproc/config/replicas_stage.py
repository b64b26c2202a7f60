"""The stage `replicas`: the other sidecars before the same backends, and where their reports are heard."""

from typing import Annotated

from annotated_types import Len
from pydantic import Field

from extproc.config.fields import HostOrAddress, IpAddress, Stage


class ReplicasConfig(Stage):
    """Sidecars that report to each other what they send; without `hosts` there are none.

    Every address of a name counts, and this sidecar's own may be among them. All listen at the same port.
    """

    hosts: Annotated[tuple[HostOrAddress, ...], Field(strict=False), Len(0, 64)] = ()
    address: IpAddress = "0.0.0.0:9004"
