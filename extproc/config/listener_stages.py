"""The stages `server` and `http`: where the sidecar listens."""

from typing import Literal, Self

from pydantic import Field, model_validator

from extproc.config.fields import FilePath, GrpcAddress, Seconds, Stage, TcpAddress, Whole


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
    max_message_bytes: Whole = Field(default=33 << 20, ge=1 << 16, le=1 << 30)  # Envoy's 32 MiB and a margin
    drain_s: Seconds = 5.0  # guessed: the longest that SIGTERM waits for streams to end

    @model_validator(mode="after")
    def _tls_is_possible(self) -> Self:
        if self.tls is not None and (self.transport != "thin" or self.address.startswith("unix:")):
            raise ValueError("tls needs transport: thin, and a TCP address")
        return self


class HttpConfig(Stage):
    """The sidecar's own HTTP server."""

    address: TcpAddress = "127.0.0.1:9003"
