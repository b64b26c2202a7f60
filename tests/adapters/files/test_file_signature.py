import os
from collections.abc import Callable
from pathlib import Path

import pytest

from extproc.adapters.files.file_signature import file_signature


def write_other_content(path: Path) -> None:
    """Of the same size, with the time of the last change set back."""
    times = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"one")
    path.with_name("new").rename(path)


@pytest.mark.parametrize(
    "change", [write_other_content, replace, lambda path: path.chmod(0o600), lambda path: path.unlink()]
)
def test_every_change_is_seen(change: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    path.chmod(0o644)
    before = file_signature(path)
    while not _has_ticked(path):
        pass
    assert before is not None
    change(path)
    assert file_signature(path) != before


def _has_ticked(path: Path) -> bool:
    """Whether the file system's clock is past the file's last change."""
    clock = path.with_name("clock")
    clock.write_bytes(b"")
    return clock.stat().st_ctime_ns > path.stat().st_ctime_ns


def test_a_file_that_is_left_alone_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = file_signature(path)
    path.read_bytes()
    assert file_signature(path) == before


def test_only_a_regular_file_has_a_signature(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert [file_signature(tmp_path / name) for name in ("fifo", "absent", ".")] == [None] * 3
