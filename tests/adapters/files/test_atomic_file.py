import os
from pathlib import Path

import pytest

from extproc.adapters.files.atomic_file import write_atomically


def test_new_file_holds_the_data_and_everyone_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "cds.json"
    before = os.umask(0o077)
    try:
        write_atomically(path, b"{}")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"{}"
    assert path.stat().st_mode & 0o777 == 0o644


def test_file_is_replaced_not_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_atomically(path, b"new and longer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new and longer"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_neither_a_change_nor_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(path, b"data")
    assert list(tmp_path.iterdir()) == [path]


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "absent" / "file", b"")
