"""The model file as training sees it: the incumbent that is in it, and its replacement in one go."""

from pathlib import Path

from extproc.adapters.files.atomic_file import write_or_raise
from extproc.errors import ModelFileError, TrainingError
from extproc.learning.fit import Training
from extproc.learning.model_file import MAX_FILE_BYTES, dump, load
from extproc.learning.predictor import Predictor


def incumbent_at(path: Path) -> Predictor | None:
    """The model in the file; None where there is none that a sidecar would accept."""
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
