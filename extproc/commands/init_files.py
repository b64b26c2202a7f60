"""The configuration that `extproc init` writes: settings that matter at the start, each with a comment."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPLATE = """\
# The configuration of `extproc serve`, written by `extproc init`. A setting that is not here has its default;
# extproc.example.yaml and deploy/CONFIGURATION.md in the repository describe all of them.

# The vLLM servers. The sidecar reads this list again when it changes; all other settings need a restart.
backends:
{backends}
# The sidecar listens here for Envoy (server), and for people and Prometheus (http). Keep both on loopback.
server: {{address: {grpc}}}
http: {{address: {http}}}

# The sidecar writes the addresses of the servers to this file. envoy.yaml names it, too.
envoy: {{cds_path: {cds}}}

# The longest wait at a server before the request's own prompt is computed, in seconds. Where it would be
# longer, requests are refused with 503. Set it to the wait that you promise.
guard: {{max_predicted_ttft_s: 2.0}}

# While all servers are full: reject refuses requests with 503, queue lets them wait in the sidecar.
admission: {{mode: reject}}

# Outcomes are recorded here, for `extproc analyze` and `extproc train`. Delete the line to record nothing.
samples: {{path: {samples}}}

# A trained model, if there is one. None is needed.
model: {{path: {model}}}
"""


@dataclass(frozen=True, slots=True)
class Places:
    """The directory of the two files, and of all that the sidecar writes."""

    directory: Path

    @property
    def sidecar(self) -> Path:
        """The configuration of the sidecar."""
        return self.directory / "extproc.yaml"

    @property
    def envoy(self) -> Path:
        """The configuration of Envoy."""
        return self.directory / "envoy.yaml"

    @property
    def cds(self) -> Path:
        """The file by which Envoy learns of the servers; Envoy watches its directory."""
        return self.directory / "run" / "cds.json"


def sidecar_text(places: Places, backends: Sequence[Mapping[str, Any]], grpc: str, http: str) -> str:
    """Return `extproc.yaml`."""
    return TEMPLATE.format(
        backends="".join(_backend(backend) for backend in backends),
        grpc=json.dumps(grpc),
        http=json.dumps(http),
        cds=json.dumps(str(places.cds)),
        samples=json.dumps(str(places.directory / "samples.db")),
        model=json.dumps(str(places.directory / "model.json")),
    )


def _backend(fields: Mapping[str, Any]) -> str:
    """Write a server; every value is a text, and JSON's texts are YAML's."""
    lines = [f"{name}: {json.dumps(str(value))}\n" for name, value in fields.items()]
    return f"  - {'    '.join(lines)}"
