"""vLLM servers as configured or discovered: one of them, and the set that discovery found last."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from extproc.fleet.inference_stage import ALL_STAGES, InferenceStage

ENDPOINT_SUFFIX = "_endpoint"
"""NAME leads to the backend and, should it not answer, to another one; NAME_endpoint to the backend alone."""
GRPC_SUFFIX = "_grpc"
"""NAME_grpc and NAME_grpc_endpoint lead to the port of the backend that speaks gRPC, in the same way."""


def is_ip_address(host: str) -> bool:
    """Return whether a host is given by its address, and not by a name."""
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def host_and_port(address: str) -> tuple[str, int]:
    """Split HOST:PORT, as the configuration has checked it; an IPv6 address loses its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class TlsRule:
    """How a server is reached by TLS: the name that its certificate has to have, and the authorities for it.

    An empty `server_name` stands for its host. The authorities are in the file at `ca_path`, which Envoy
    reads as well.
    """

    server_name: str
    ca_path: Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A vLLM server: `name` is its cluster in Envoy; `models` is None where the server has to be asked.

    `stages` are the parts of a request that it computes. `rank` counts the ports of one pod: with data
    parallelism each is an engine of its own.
    `api_key_path` is the file with the key for its metrics and its list of models. A server that
    `resolves_adapters` loads those that it does not list at their first request. Without `tls` it speaks
    plain HTTP; all its paths begin with `path_prefix`. Calls of gRPC go to its `grpc_port`, if it has one,
    and other requests to `port`, if it `serves_http`: else that port has only metrics, or is the same one.
    """

    name: str
    host: str
    port: int
    models: frozenset[str] | None = None
    max_num_seqs: int | None = None
    stages: frozenset[InferenceStage] = ALL_STAGES
    rank: int = 0
    api_key_path: Path | None = None
    resolves_adapters: bool = False
    tls: TlsRule | None = None
    path_prefix: str = ""
    grpc_port: int | None = None
    serves_http: bool = True

    @property
    def at_grpc_port(self) -> "Endpoint":
        """The same server as calls of gRPC reach it."""
        return replace(self, port=self.grpc_port or self.port, path_prefix="")

    @property
    def speaks_only_grpc(self) -> bool:
        """Whether it has nothing that could be asked for metrics or models."""
        return not self.serves_http and self.grpc_port == self.port

    @property
    def can_answer(self) -> bool:
        """Whether a request may be sent there; a server that only prefills works for others."""
        return InferenceStage.DECODE in self.stages

    @property
    def only_prefills(self) -> bool:
        """Whether it computes prompts for others, and answers no request."""
        return InferenceStage.PREFILL in self.stages and not self.can_answer

    @property
    def takes_prefilled(self) -> bool:
        """Whether it takes prompts that another server has computed; one that computes all stages may not."""
        return self.can_answer and self.stages != ALL_STAGES

    @property
    def address(self) -> str:
        """HOST:PORT, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def location(self) -> tuple[str, str, TlsRule | None, int | None]:
        """Where it is and how it is reached: a server with another location is another one."""
        return self.address, self.path_prefix, self.tls, self.grpc_port


class KnownBackends:
    """The set in force, at most `limit` of them; an answer without any is doubted for `empty_grace_s`.

    An empty answer may be right: a headless service without ready pods. Or a selector was mistyped, or a name
    server has lost its zone; then believing it would take every backend out at once. Keeping the known ones
    costs nothing meanwhile: if they really are gone, the guard sees it and refuses. The doubt has an end,
    since addresses are given to others. A failure to get an answer is no answer, and changes nothing.

    Times are seconds of one monotonic clock.
    """

    def __init__(self, empty_grace_s: float, limit: int, backends: Iterable[Endpoint] = ()) -> None:
        self.backends = tuple(backends)
        self.left_out = 0
        """How many of the last answer are too many."""
        self._empty_grace_s = empty_grace_s
        self._limit = limit
        self._empty_since_s: float | None = None

    @property
    def is_doubting(self) -> bool:
        """Whether the last answer was empty, and the backends known before are kept."""
        return self._empty_since_s is not None

    def offer(self, backends: Iterable[Endpoint], now_s: float) -> bool:
        """Take in an answer of discovery; True if the set in force is another one now.

        If there are too many, those in force stay.
        """
        known = {backend.name for backend in self.backends}
        found = sorted(backends, key=lambda backend: (backend.name not in known, backend.name))
        if not found and self.backends:
            self._empty_since_s = now_s if self._empty_since_s is None else self._empty_since_s
            return self.advance(now_s)
        self._empty_since_s = None
        self.left_out = max(0, len(found) - self._limit)
        return self._set(found[: self._limit])

    def advance(self, now_s: float) -> bool:
        """Let time pass; True if an answer without backends has lasted, and is in force from now on."""
        if self._empty_since_s is None or now_s - self._empty_since_s < self._empty_grace_s:
            return False
        self._empty_since_s = None
        return self._set([])

    def _set(self, backends: list[Endpoint]) -> bool:
        ordered = tuple(sorted(backends, key=lambda backend: backend.name))
        is_changed = ordered != self.backends
        self.backends = ordered
        return is_changed
