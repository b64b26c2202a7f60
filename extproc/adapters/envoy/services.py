"""The services that Envoy calls here, whatever transport serves them: their names, and their health.

Health is `grpc.health.v1` (https://github.com/grpc/grpc/blob/master/doc/health-checking.md): one status for
the whole process, SERVING from start to drain, for every service that it offers.
"""

from google.protobuf.message import DecodeError

from extproc.adapters.protos import health_pb2 as pb

EXT_PROC_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
ACCESS_LOG_SERVICE = "envoy.service.accesslog.v3.AccessLogService"
HEALTH_SERVICE = "grpc.health.v1.Health"
SERVICE_UNKNOWN = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()
"""What `Watch` answers where `Check` fails with NOT_FOUND."""


class Health:
    """The health of the process."""

    def __init__(self, services: frozenset[str]) -> None:
        self.is_serving = False
        self._services = services | {"", HEALTH_SERVICE}

    def answer(self, message: bytes) -> bytes | None:
        """Answer a `HealthCheckRequest`; None where it asks about a service that is not there."""
        try:
            service = pb.HealthCheckRequest.FromString(message).service
        except DecodeError:
            return None
        return self.state() if service in self._services else None

    def state(self) -> bytes:
        """Return the response about any service that is there."""
        status = pb.HealthCheckResponse.SERVING if self.is_serving else pb.HealthCheckResponse.NOT_SERVING
        return pb.HealthCheckResponse(status=status).SerializeToString()
