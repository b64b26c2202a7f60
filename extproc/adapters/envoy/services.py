"""The services that Envoy calls here, whatever transport serves them: their names, health and server.

Health is `grpc.health.v1` (https://github.com/grpc/grpc/blob/master/doc/health-checking.md): one status for
the whole process, SERVING from start to drain, for every service that it offers.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from google.protobuf.message import DecodeError

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.envoy.access_log_wire import decode_entries
from extproc.adapters.envoy.log_queue import LogQueue
from extproc.adapters.protos import health_pb2 as pb
from extproc.config.stages import ServerConfig
from extproc.errors import ProtocolError
from extproc.outcomes.outcome import LogEntry

EXT_PROC_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
ACCESS_LOG_SERVICE = "envoy.service.accesslog.v3.AccessLogService"
HEALTH_SERVICE = "grpc.health.v1.Health"
SERVICE_UNKNOWN = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()
"""The answer of `Watch` where `Check` fails with NOT_FOUND."""
SERVING = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING).SerializeToString()
SERVICES = frozenset({"", HEALTH_SERVICE, EXT_PROC_SERVICE, ACCESS_LOG_SERVICE})


class EnvoyServer(ABC):
    """Serves from `start` to `drain`, in between it `is_serving`; `open_streams` are of ext_proc.

    `protocol_errors` counts what was ended for what had been sent on it. `services` all have the same health,
    but those that are `living`, which serve as long as they can be asked.
    """

    services = SERVICES
    living: frozenset[str] = frozenset()

    def __init__(self, config: ServerConfig, handle_entries: Callable[[Iterable[LogEntry]], None]) -> None:
        self.protocol_errors = 0
        self.open_streams = 0
        self.is_serving = self.is_draining = False
        self._config = config
        self.handle_entries = handle_entries
        self.log = LogQueue(handle_entries)
        self._protocol = ConditionLog(logging.getLogger(type(self).__module__), "grpc_protocol_error")

    @abstractmethod
    async def start(self) -> int:
        """Listen, and report SERVING; returns the port, 0 for a unix socket."""

    @abstractmethod
    async def drain(self) -> None:
        """Report NOT_SERVING, end the streams cleanly, then stop."""

    def health(self) -> bytes:
        """Return the response about any service that is there."""
        status = pb.HealthCheckResponse.SERVING if self.is_serving else pb.HealthCheckResponse.NOT_SERVING
        return pb.HealthCheckResponse(status=status).SerializeToString()

    def answer(self, message: bytes) -> bytes | None:
        """Answer a `HealthCheckRequest`; None where it asks about a service that is not there."""
        try:
            service = pb.HealthCheckRequest.FromString(message).service
        except DecodeError:
            return None
        if service not in self.services:
            return None
        return SERVING if service in self.living else self.health()

    def take_entries(self, message: bytes) -> None:
        """Take a message of the access log; bytes that are none are reported, and skipped."""
        try:
            self.log.add(decode_entries(message), len(message))
        except ProtocolError as error:
            self._refused(error)

    def flush_soon(self) -> None:  # noqa: B027 - grpcio writes by itself
        """Have what is sent while nothing is received written, where that does not happen by itself."""

    def _refused(self, error: ProtocolError) -> None:
        self.protocol_errors += 1
        self._protocol.failed(str(error), time.monotonic())
