"""The model file as it is now: what a challenger has to beat. Somebody may have put it there by hand."""

from pathlib import Path

from extproc.adapters.files.file_signature import FileSignature, file_signature
from extproc.adapters.files.published_model import incumbent_at
from extproc.learning.predictor import Predictor


class Incumbent:
    """The model at `path`, loaded once for each change of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: FileSignature | None = None
        self._model: Predictor | None = None

    def current(self) -> Predictor | None:
        """The model; None as long as there is none that a sidecar would accept."""
        signature = file_signature(self._path)
        if signature != self._signature:
            self._model = None if signature is None else incumbent_at(self._path)
            self._signature = signature
        return self._model
