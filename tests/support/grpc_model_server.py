"""A model server that speaks gRPC, by vLLM's names, of whose messages only the bytes matter."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

SERVICE = "vllm.Inference"
FAIL = b"fail"
"""A call with this message ends with the status UNAVAILABLE."""


class GrpcModelServer:
    """Answers each message with its own name; a stream has two messages, the second when it `may_end`."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.calls = 0
        self.may_end = threading.Event()
        self.may_end.set()
        self.open_streams = 0
        self._server = grpc.server(ThreadPoolExecutor(8))
        handlers = {
            "Generate": grpc.unary_unary_rpc_method_handler(self._answer),
            "GenerateStream": grpc.unary_stream_rpc_method_handler(self._stream),
        }
        converse = {"ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._converse)}
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE, handlers),
                grpc.method_handlers_generic_handler("inference.GRPCInferenceService", converse),
            )
        )

    def start(self, credentials: grpc.ServerCredentials | None = None) -> int:
        """Serve on a free port, and return it."""
        port: int = (
            self._server.add_insecure_port("127.0.0.1:0")
            if credentials is None
            else self._server.add_secure_port("127.0.0.1:0", credentials)
        )
        self._server.start()
        return port

    def stop(self) -> None:
        self.may_end.set()
        self._server.stop(None).wait()

    def _answer(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls += 1
        if message == FAIL:
            context.abort(grpc.StatusCode.UNAVAILABLE, "asked to fail")
        sent = dict(context.invocation_metadata())
        context.send_initial_metadata([("x-first", str(sent.get("x-sent")))])
        context.set_trailing_metadata([("x-last", "trailer")])
        return self.name + b": " + message

    def _stream(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.calls += 1
        self.open_streams += 1
        context.add_callback(self._ended)
        yield self.name + b": " + message
        while not self.may_end.wait(0.02):
            if not context.is_active():
                return
        context.set_trailing_metadata([("x-last", "trailer")])
        yield b"end"

    def _ended(self) -> None:
        self.open_streams -= 1

    def _converse(self, messages: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        self.calls += 1
        for message in messages:
            yield self.name + b": " + message
