"""A backend whose answers are meant to cost: its thread sends the same bytes to every request."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

GAUGES = b'vllm:num_requests_running{engine="0"} 1.0\nvllm:num_requests_waiting{engine="0"} 0.0\n'
_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def padded(size: int) -> bytes:
    """A page of metrics that can be read, of this many bytes."""
    return GAUGES + b"# nothing\n" * ((size - len(GAUGES)) // 10)


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def until_closed(body: bytes) -> bytes:
    """An answer whose end is that of the connection."""
    return b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body


def in_chunks(body: bytes, size: int) -> bytes:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return _CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def with_headers(lines: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + lines + b"content-length: 0\r\n\r\n"


@contextmanager
def answering(answer: bytes, *, then_close: bool = False, piece_bytes: int = 1 << 20) -> Iterator[int]:
    """The port of the server; `piece_bytes` are given to the socket at once, which does not wait for more."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        threading.Thread(target=_serve, args=(listener, answer, then_close, piece_bytes), daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, answer: bytes, then_close: bool, piece_bytes: int) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while connection.recv(1 << 16):
                    for start in range(0, len(answer), piece_bytes):
                        connection.sendall(answer[start : start + piece_bytes])
                    if then_close:
                        break
            except OSError:
                continue
