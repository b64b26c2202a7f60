"""TLS towards one server: which certificate it has to show. The file of authorities may be replaced."""

import ssl
from typing import Any

from extproc.adapters.files.file_watch import FileSignature, file_signature
from extproc.fleet.endpoint import TlsRule


class ServerTls:
    """Makes the options of a connection; the file is looked at whenever one begins, which is rare."""

    def __init__(self, rule: TlsRule) -> None:
        self._rule = rule
        self._signature: FileSignature | None = None
        self._context: ssl.SSLContext | None = None

    def options(self, host: str) -> dict[str, Any]:
        """Return what asyncio has to know; raises OSError where the file cannot be used."""
        signature = file_signature(self._rule.ca_path)
        if self._context is None or signature != self._signature:
            self._context = ssl.create_default_context(cafile=str(self._rule.ca_path))
            self._signature = signature
        return {"ssl": self._context, "server_hostname": self._rule.server_name or host}
