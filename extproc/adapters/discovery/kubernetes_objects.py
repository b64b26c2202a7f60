"""Objects of the Kubernetes API, as far as they are read: their metadata, and lists of them.

See https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/.
"""

from typing import Generic, TypeVar

import msgspec


class Metadata(msgspec.Struct, rename="camel"):
    """The part of an object's metadata that is read; `resource_version` is opaque, times are in RFC 3339."""

    name: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class KubernetesObject(msgspec.Struct):
    """An object of any kind; each kind adds the fields that are read of it."""

    metadata: Metadata


Object = TypeVar("Object", bound=KubernetesObject)


class ObjectList(msgspec.Struct, Generic[Object]):
    """The answer to a list."""

    metadata: Metadata
    items: list[Object]
