"""The model file as it is now: what a challenger has to beat. Somebody may have put it there by hand."""

import stat
from pathlib import Path

from extproc.adapters.files.published_model import incumbent_at
from extproc.learning.predictor import Predictor

_Signature = tuple[int, int, int]


class Incumbent:
    """The model at `path`, loaded once for each change of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: _Signature | None = None
        self._model: Predictor | None = None

    def current(self) -> Predictor | None:
        """The model; None as long as there is none that a sidecar would accept."""
        signature = self._file_signature()
        if signature != self._signature:
            self._model = None if signature is None else incumbent_at(self._path)
            self._signature = signature
        return self._model

    def _file_signature(self) -> _Signature | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return status.st_ino, status.st_size, status.st_ctime_ns
