import os
from pathlib import Path

from extproc.adapters.trainer.published_model import Incumbent


def test_the_model_in_the_file_is_the_one_that_is_there_now(tmp_path: Path, model_bytes: bytes) -> None:
    path = tmp_path / "model.json"
    incumbent = Incumbent(path)
    assert incumbent.current() is None
    path.write_bytes(model_bytes)
    first = incumbent.current()
    assert first is not None
    assert first.manifest.model_version in model_bytes.decode()
    path.write_bytes(model_bytes[:-100])
    assert incumbent.current() is None
    path.write_bytes(model_bytes)
    assert incumbent.current() is not None
    path.unlink()
    assert incumbent.current() is None


def test_an_unchanged_file_is_loaded_once(tmp_path: Path, model_bytes: bytes) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(model_bytes)
    incumbent = Incumbent(path)
    model = incumbent.current()
    assert model is not None
    assert incumbent.current() is model


def test_a_fifo_or_a_directory_is_no_model_and_blocks_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert Incumbent(tmp_path / "fifo").current() is None
    assert Incumbent(tmp_path).current() is None
