"""Envoy's bootstrap: the shipped `envoy.yaml` with a few addresses replaced."""

from math import inf
from pathlib import Path

import yaml

from extproc.adapters.envoy.cluster_document import Document, discovery_type, socket_address
from extproc.errors import ExtprocError


def shipped_bootstrap() -> str:
    """Return the text of envoy.yaml: beside this module in an installed package, in envoy/ in a checkout."""
    here = Path(__file__)
    for path in (here.with_name("envoy.yaml"), here.parents[3] / "envoy" / "envoy.yaml"):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise ExtprocError("envoy.yaml is missing from this installation of extproc")


def bootstrap(
    base: str,
    *,
    listen_port: int,
    admin_port: int,
    ext_proc: str,
    cds_path: Path,
    listen_host: str = "127.0.0.1",
) -> str:
    """Return `base`, the shipped text, with its addresses replaced; everything else stays, comments included.

    `ext_proc` is "host:port" or "unix:///path.sock". Raises ExtprocError if `base` lacks one of the places to
    be replaced.
    """
    kind, sidecar = _sidecar_address(ext_proc)
    listener, admin = socket_address(listen_host, listen_port), socket_address("127.0.0.1", admin_port)
    watched = {"watched_directory": {"path": str(cds_path.parent)}}
    text = base
    for shipped, wanted in (
        ("socket_address: {address: 0.0.0.0, port_value: 8080}", _flow(listener)),
        ("socket_address: {address: 127.0.0.1, port_value: 9901}", _flow(admin)),
        ("socket_address: {address: 127.0.0.1, port_value: 9002}", _flow(sidecar)),
        ("\n    type: STATIC\n", f"\n    type: {kind}\n"),
        ("path: /var/run/extproc/cds.json", _flow({"path": str(cds_path)})),
        ("watched_directory: {path: /var/run/extproc}", _flow(watched)),
    ):
        if text.count(shipped) != 1:
            raise ExtprocError(f"the base of Envoy's bootstrap lacks an expected place: {shipped.strip()}")
        text = text.replace(shipped, wanted)
    return text


def _flow(field: Document) -> str:
    """Write a mapping of one field on one line, without the braces around it."""
    return yaml.safe_dump(field, default_flow_style=True, width=inf).strip()[1:-1]


def _sidecar_address(target: str) -> tuple[str, Document]:
    if target.startswith("unix://"):
        return "STATIC", {"pipe": {"path": target.removeprefix("unix://")}}
    host, _, port = target.rpartition(":")
    if not (host and port.isdecimal()):
        raise ExtprocError(f"neither HOST:PORT nor unix:///PATH: {target!r}")
    host = host.strip("[]")
    return discovery_type(host), socket_address(host, int(port))
