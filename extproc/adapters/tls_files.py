"""The certificates that a TLS server shows and asks for, from files that may be replaced while it runs.

The files are looked at whenever a connection begins, which is rare: its handshake uses what they hold then.
Where they cannot be used, say between the replacement of one and of the other, what is in use stays.
"""

import logging
import ssl

from extproc.adapters.files.file_signature import FileSignature, file_signature
from extproc.config.listener_stages import TlsConfig

logger = logging.getLogger(__name__)


class TlsFiles:
    """`context` is the server's: it belongs to no connection, but every handshake begins with it."""

    def __init__(self, config: TlsConfig, alpn_protocol: str) -> None:
        """Raises OSError where the files cannot be used; ssl.SSLError is one."""
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
        context.load_cert_chain(self._config.cert_path, self._config.key_path)
        if self._config.client_ca_path is not None:
            context.load_verify_locations(self._config.client_ca_path)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
