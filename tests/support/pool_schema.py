"""The rules that a cluster holds an InferencePool to, in our words: no package has its schema.

Those of inference.networking.k8s.io/v1, release 1.6 of the Gateway API Inference Extension. All pools of
deploy/ were held against its definition itself on 2026-11-30, unknown fields refused, without a fault.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(min_length=1, max_length=253)]
LabelKey = Annotated[str, Meta(pattern=r"^[\w./-]{1,317}$")]
LabelValue = Annotated[str, Meta(max_length=63, pattern=r"^(([A-Za-z0-9][\w.-]*)?[A-Za-z0-9])?$")]


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Port(_Strict):
    number: Annotated[int, Meta(ge=1, le=65535)]


class _Selector(_Strict):
    matchLabels: Annotated[dict[LabelKey, LabelValue], Meta(min_length=1, max_length=64)]  # noqa: N815


class _Picker(_Strict):
    """Only that of a Service, which has to have a port."""

    name: Name
    port: _Port
    group: Literal[""] = ""
    kind: Literal["Service"] = "Service"
    failureMode: Literal["FailOpen", "FailClose"] = "FailClose"  # noqa: N815


class _Spec(_Strict):
    selector: _Selector
    targetPorts: Annotated[list[_Port], Meta(min_length=1, max_length=8)]  # noqa: N815
    endpointPickerRef: _Picker  # noqa: N815
    appProtocol: Literal["http", "kubernetes.io/h2c"] = "http"  # noqa: N815


def require_valid(pool: dict[str, Any]) -> None:
    """Raises ValidationError where a pool breaks one of the rules."""
    spec = msgspec.convert(pool["spec"], _Spec)
    numbers = [port.number for port in spec.targetPorts]
    if len(set(numbers)) < len(numbers):
        raise msgspec.ValidationError("a port is there twice")
