"""The certificates of the gRPC server, from files that may be replaced while it runs."""

import errno
import logging
import os
import ssl
from contextlib import ExitStack
from typing import BinaryIO

from extproc.adapters.files.file_watch import FileSignature, file_signature
from extproc.config.regular_file import open_regular
from extproc.config.stages import TlsConfig

logger = logging.getLogger(__name__)

_MAX_FILE_BYTES = 1 << 20
"""Guessed: the certificates of all public authorities together have 250 KB."""

_NO_PASSWORD = b""
"""Else OpenSSL would ask the terminal for that of an encrypted key, and wait."""


class TlsFiles:
    """The certificates that a TLS server shows and asks for, from files that may be replaced while it runs.

    The files are looked at whenever a connection begins, which is rare: its handshake uses what they hold
    then. Where they cannot be used, say between the replacement of one and of the other, what is in use
    stays. `context` is the server's: it belongs to no connection, but every handshake begins with it.
    """

    def __init__(self, config: TlsConfig, alpn_protocol: str) -> None:
        """Load the files; raises OSError where the files cannot be used; ssl.SSLError is one."""
        self._config = config
        self._alpn_protocol = alpn_protocol
        paths = (config.cert_path, config.key_path, config.client_ca_path)
        self._paths = tuple(path for path in paths if path is not None)
        self._signature = self._look()
        self._newest = self.context = self._load()
        # Called for every handshake, also without a server name: typeshed knows no None there.
        self.context.sni_callback = self._choose

    def _choose(self, tls: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        signature = self._look()
        if signature != self._signature:
            self._signature = signature
            try:
                self._newest = self._load()
            except OSError as error:
                logger.error("tls_files_refused error=%s", error)
            else:
                logger.info("tls_files_loaded cert=%s", self._config.cert_path)
        tls.context = self._newest

    def _look(self) -> tuple[FileSignature | None, ...]:
        return tuple(file_signature(path) for path in self._paths)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9113, 9.2
        context.set_alpn_protocols([self._alpn_protocol])
        # Connections last, so resumption saves nothing; a session could outlive the trust that it began with.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        with ExitStack() as opened:
            files = [opened.enter_context(open_regular(path)) for path in self._paths]
            cert, key, *client_ca = map(_path_of, files)
            context.load_cert_chain(cert, key, password=_NO_PASSWORD)
            for path in client_ca:
                context.load_verify_locations(path)
                context.verify_mode = ssl.CERT_REQUIRED
        return context


def _path_of(file: BinaryIO) -> str:
    """Return a path that leads to an open file, whatever its own path leads to by now.

    Raises OSError where there is too much of it to be read in a handshake.
    """
    if os.fstat(file.fileno()).st_size > _MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"more than {_MAX_FILE_BYTES} bytes")
    return f"/dev/fd/{file.fileno()}"
