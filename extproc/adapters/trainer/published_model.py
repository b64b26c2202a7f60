"""The model file as training sees it: the incumbent that is in it, and its replacement in one go."""

from pathlib import Path

from extproc.adapters.files.atomic_file import write_or_raise
from extproc.adapters.files.file_watch import FileSignature, file_signature
from extproc.errors import ModelFileError, TrainingError
from extproc.learning.fit import Training
from extproc.learning.model_file import MAX_FILE_BYTES, dump, load
from extproc.learning.predictor import Predictor


class Incumbent:
    """The model at `path`, which a challenger has to beat; loaded once for each change of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: FileSignature | None = None
        self._model: Predictor | None = None

    def current(self) -> Predictor | None:
        """Return the model that is in the file now; None without one that a sidecar would accept."""
        signature = file_signature(self._path)
        if signature != self._signature:
            self._model = None if signature is None else incumbent_at(self._path)
            self._signature = signature
        return self._model


def incumbent_at(path: Path) -> Predictor | None:
    """Return the model in the file; None without one that a sidecar would accept."""
    try:
        if not path.is_file():  # a FIFO would be waited for
            return None
        with path.open("rb") as file:
            return load(file.read(MAX_FILE_BYTES + 1))
    except (OSError, ModelFileError):
        return None


def publish(training: Training, path: Path) -> None:
    """Replace the file once the new one has been loaded; raises ModelFileError or TrainingError."""
    data = dump(training.model_file)
    load(data)
    write_or_raise(path, data, TrainingError)
