"""The stages `server` and `http`: where the sidecar listens."""

from typing import Annotated, Literal

from annotated_types import Ge, Le

from extproc.config.fields import FilePath, GrpcAddress, TcpAddress
from extproc.config.stage import Stage
from extproc.fleet.bounds import Seconds


class TlsConfig(Stage):
    """The server's certificate; with `client_ca_path`, callers need one of that authority."""

    cert_path: FilePath
    key_path: FilePath
    client_ca_path: FilePath | None = None


class ServerConfig(Stage):
    """The gRPC server that Envoy talks to."""

    address: GrpcAddress = "127.0.0.1:9002"
    transport: Literal["thin", "grpcio"] = "thin"  # measured: a quarter of the CPU
    tls: TlsConfig | None = None
    max_message_bytes: Annotated[int, Ge(1 << 16), Le(1 << 30)] = 33 << 20  # Envoy's 32 MiB and a margin
    drain_s: Seconds = 5.0  # guessed: the longest that SIGTERM waits for streams to end

    def model_post_init(self, _: object) -> None:
        """Raise ValueError where TLS is not possible."""
        if self.tls is not None and (self.transport != "thin" or self.address.startswith("unix:")):
            raise ValueError("tls needs transport: thin, and a TCP address")


class HttpConfig(Stage):
    """The sidecar's own HTTP server."""

    address: TcpAddress = "127.0.0.1:9003"
