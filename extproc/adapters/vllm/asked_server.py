"""One server as it is asked for its metrics and its models: its key goes along, redirections are followed.

Servers send `/metrics` on to `/metrics/`, say. A redirection is followed where it leads to the same host and
port, so that a server can neither have others asked nor be given their answers or its key; and the new
path is remembered, as long as it answers well.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urljoin, urlsplit

from extproc.adapters.vllm.kept_connection import AnswerTooLargeError, HttpAnswer, KeptConnection
from extproc.config.fields import DEFAULT_PORTS

MAX_REDIRECTIONS = 2
"""Guessed: one for a slash at the end, one to spare."""

_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_LOCKED = frozenset({401, 403})
_IS_PATH = re.compile(r"/[!-~]{0,2047}")


class ScrapeResult(StrEnum):
    """How a scrape ended."""

    OK = "ok"
    REFUSED = "refused"
    HUNG = "hung"
    UNREACHABLE = "unreachable"
    BAD_STATUS = "bad_status"
    UNAUTHORIZED = "unauthorized"
    INVALID = "invalid"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """How a question ended; `body` is the answer to one that ended well, `detail` says what went wrong."""

    result: ScrapeResult
    body: bytes = b""
    detail: str = ""


class AskedServer:
    """Asks one server over the connection that is kept to it; its paths begin with `path_prefix`."""

    def __init__(self, connection: KeptConnection, path_prefix: str = "") -> None:
        self._connection = connection
        self._path_prefix = path_prefix
        self._moved: dict[str, str] = {}

    @property
    def spent_s(self) -> float:
        """The CPU that all answers together have taken, in seconds."""
        return self._connection.spent_s

    def close(self) -> None:
        """Give the connection up."""
        self._connection.close()

    def forget_redirection(self, path: str) -> None:
        """Ask for `path` itself the next time: where it led to is of no use any more."""
        self._moved.pop(path, None)

    async def ask(self, path: str, key_header: bytes = b"") -> ServerAnswer:
        """Return the answer to a GET of `path`, and never raise what the server is to blame for."""
        try:
            answer = await self._followed(path, key_header)
        except ConnectionRefusedError as error:
            return ServerAnswer(ScrapeResult.REFUSED, detail=str(error))
        except AnswerTooLargeError as error:
            return ServerAnswer(ScrapeResult.TOO_LARGE, detail=str(error))
        except TimeoutError as error:
            return ServerAnswer(ScrapeResult.HUNG, detail=str(error) or "no answer in time")
        except (OSError, ValueError) as error:  # ValueError: a host that is no name
            return ServerAnswer(ScrapeResult.UNREACHABLE, detail=f"{type(error).__name__}: {error}")
        if answer.status == 200:
            return ServerAnswer(ScrapeResult.OK, answer.body)
        result = ScrapeResult.UNAUTHORIZED if answer.status in _LOCKED else ScrapeResult.BAD_STATUS
        return ServerAnswer(result, detail=f"status {answer.status} of {path}")

    async def _followed(self, path: str, key_header: bytes) -> HttpAnswer:
        usual = self._path_prefix + path
        asked = self._moved.get(path, usual)
        answer = await self._connection.get(asked, key_header)
        for _ in range(MAX_REDIRECTIONS):
            if answer.status not in _REDIRECTIONS:
                break
            found = self._path_here(asked, answer.location)
            if found is None:
                break
            asked = found
            answer = await self._connection.get(asked, key_header)
        if answer.status == 200 and asked != usual:
            self._moved[path] = asked
        else:
            self._moved.pop(path, None)
        return answer

    def _path_here(self, asked: str, location: bytes) -> str | None:
        """Return the path that a redirection leads to; None where that is no path of the same server."""
        connection = self._connection
        base = f"{connection.scheme}://{connection.authority}"
        try:
            here, found = urlsplit(base), urlsplit(urljoin(base + asked, location.decode("ascii")))
            port = found.port or DEFAULT_PORTS.get(found.scheme)
            is_here = (found.scheme, found.hostname, port) == (here.scheme, here.hostname, here.port)
        except ValueError:
            return None
        target = found._replace(scheme="", netloc="", fragment="").geturl()
        return target if is_here and found.username is None and _IS_PATH.fullmatch(target) else None
