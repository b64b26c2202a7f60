"""A real Envoy for the integration tests: the shipped bootstrap, on ports that the kernel chooses."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support.patience import PATIENCE_S

from extproc.adapters.envoy.bootstrap import bootstrap, shipped_bootstrap
from extproc.adapters.envoy.cluster_document import cds_document
from extproc.adapters.files.atomic_file import write_atomically
from extproc.fleet.endpoint import Endpoint

ENVOY = Path(sys.executable).with_name("envoy")
SHIPPED_MESSAGE_TIMEOUT_S = 1
MESSAGE_TIMEOUT_S = 30
"""How long Envoy waits for a sidecar here. After the shipped second it also goes around a good one, where
the machine stalls for so long; who tests what comes of that second asks for it."""


class RunningEnvoy:
    """One Envoy with this configuration: `url` for clients, and `admin_url`."""

    def __init__(self, directory: Path, config: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._log_path = directory / "envoy.log"
        config_path, address_path = directory / "envoy.yaml", directory / "admin"
        config_path.write_text(config)
        command: list[str | Path] = [ENVOY, "-c", config_path, "--admin-address-path", address_path]
        command += ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._until(lambda: address_path.exists() and ":" in address_path.read_text())
            self.admin_url = f"http://{address_path.read_text()}"
            self._until(lambda: self.admin("/server_info")["state"] == "LIVE")
            listener = self.admin("/listeners?format=json")["listener_statuses"][0]
        except BaseException:
            self.stop()
            raise
        address = listener["local_address"]["socket_address"]
        self.url = f"http://{address['address']}:{address['port_value']}"

    def admin(self, path: str) -> Any:
        """The JSON that the admin interface answers with."""
        with urllib.request.urlopen(self.admin_url + path, timeout=PATIENCE_S) as response:
            return json.load(response)

    def stat(self, name: str) -> Any:
        """The value of one counter, gauge or text; None if Envoy has none of that name."""
        stats = self.admin(f"/stats?format=json&filter=^{name}$")["stats"]
        return next((stat["value"] for stat in stats if stat.get("name") == name), None)

    def until_stat(self, name: str, value: object) -> None:
        """Wait until a counter, gauge or text has that value."""
        self._until(lambda: self.stat(name) == value)

    def cpu_s(self) -> float:
        """The CPU time that it has taken."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """What Envoy has printed."""
        return self._log_path.read_text(errors="replace")

    def stop(self) -> None:
        """Stop it at once; stopping again does nothing."""
        self._process.kill()
        self._process.wait()

    def _until(self, is_so: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not is_so():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"Envoy is not as expected\n{self.log()}")
            time.sleep(0.02)


class EnvoyProcess(RunningEnvoy):
    """One Envoy with the shipped configuration, and `cds_path`, which it watches.

    It waits `message_timeout_s` for the sidecar. `edit` may change the bootstrap's text before Envoy reads
    it.
    """

    def __init__(
        self,
        directory: Path,
        ext_proc: str,
        backends: Sequence[Endpoint],
        edit: Callable[[str], str] = lambda text: text,
        message_timeout_s: int = MESSAGE_TIMEOUT_S,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.cds_path = directory / "cds.json"
        self._version = 0
        write_atomically(self.cds_path, cds_document(backends, "0"))
        config = bootstrap(
            shipped_bootstrap(), listen_port=0, admin_port=0, ext_proc=ext_proc, cds_path=self.cds_path
        )
        shipped = f" message_timeout: {SHIPPED_MESSAGE_TIMEOUT_S}s\n"
        assert shipped in config
        config = config.replace(shipped, f" message_timeout: {message_timeout_s}s\n")
        super().__init__(directory, edit(config))

    def replace_backends(self, backends: Sequence[Endpoint]) -> None:
        """Write another cluster file, and wait until Envoy has it."""
        self._version += 1
        version = str(self._version)
        write_atomically(self.cds_path, cds_document(backends, version))
        self.until_stat("cluster_manager.cds.version_text", version)


StartEnvoy = Callable[..., EnvoyProcess]
