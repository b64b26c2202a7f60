"""An ext_proc call on the thin transport: one HTTP exchange, whichever protocol its messages are of."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from extproc.adapters.envoy.large_messages import LargeMessages
from extproc.exchange.placing import Placing
from extproc.h2.grpc_call import Call, Handler


class ExchangeSide(Protocol):
    """The server, as each of its calls sees it."""

    open_streams: int

    def flush_soon(self) -> None:
        """Have what is sent while nothing is received written."""


ExchangeKind = TypeVar("ExchangeKind", bound=Placing)
SideKind = TypeVar("SideKind", bound=ExchangeSide)


class ExchangeCall(Handler, Generic[ExchangeKind, SideKind]):
    """`ExternalProcessor.Process`: it counts as an open stream from its beginning to its end."""

    __slots__ = ("_call", "_exchange", "_is_half_closed", "_large_messages", "_server")

    def __init__(
        self,
        server: SideKind,
        new_exchange: Callable[[], ExchangeKind],
        large_messages: LargeMessages,
        call: Call,
    ) -> None:
        self._call = call
        self._exchange = new_exchange()
        self._server = server
        self._large_messages = large_messages
        self._is_half_closed = False
        server.open_streams += 1

    def end(self) -> None:
        """Count the stream no more."""
        self._server.open_streams -= 1
