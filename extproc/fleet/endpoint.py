"""One vLLM server as configured or discovered: its name, its address, and what it is said to serve."""

from dataclasses import dataclass

ENDPOINT_SUFFIX = "_endpoint"
"""NAME leads to the backend and, should it not answer, to another one; NAME_endpoint to the backend alone."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A vLLM server: `name` is its cluster in Envoy; `models` is None where the server has to be asked."""

    name: str
    host: str
    port: int
    models: frozenset[str] | None = None
    max_num_seqs: int | None = None

    @property
    def address(self) -> str:
        """HOST:PORT, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
