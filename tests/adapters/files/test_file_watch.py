import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from extproc.adapters.files.file_watch import INTERVAL_S, file_signature, watch_file


async def following(watch: AsyncIterator[bytes | None]) -> bytes | None:
    async with asyncio.timeout(10):
        return await anext(watch)


def test_content_is_given_at_the_start_and_at_every_change(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "model.json"
        path.write_bytes(b"one")
        watch = watch_file(path, max_bytes=100)
        assert await following(watch) == b"one"
        path.write_bytes(b"three")
        assert await following(watch) == b"three"

    asyncio.run(scenario())


def test_a_file_that_appears_goes_and_is_replaced_is_followed(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "later" / "model.json"
        watch = watch_file(path, max_bytes=100)
        assert await following(watch) is None
        path.parent.mkdir()
        (tmp_path / "new").write_bytes(b"one")
        (tmp_path / "new").rename(path)
        assert await following(watch) == b"one"
        path.unlink()
        assert await following(watch) is None

    asyncio.run(scenario())


def test_a_file_that_never_settles_is_read_all_the_same_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        path = tmp_path / "model.json"
        path.write_bytes(b"one")
        watch = watch_file(path, max_bytes=100)
        assert await following(watch) == b"one"
        rewriting = asyncio.create_task(keep_rewriting(path))
        try:
            assert (await following(watch) or b"").startswith(b"content")
        finally:
            rewriting.cancel()

    asyncio.run(scenario())
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"file_keeps_changing path={tmp_path / 'model.json'}")


async def keep_rewriting(path: Path) -> None:
    """Replace the file several times between two looks, each time by one of another length."""
    content = b"content"
    while True:
        content += b"."
        path.with_name("new").write_bytes(content)
        path.with_name("new").rename(path)
        await asyncio.sleep(INTERVAL_S / 5)


def test_a_swapped_symbolic_link_is_a_change(tmp_path: Path) -> None:
    """So Kubernetes updates a mounted ConfigMap."""

    async def scenario() -> None:
        for name in ("a", "b"):
            (tmp_path / name).write_bytes(name.encode())
        link = tmp_path / "model.json"
        link.symlink_to(tmp_path / "a")
        watch = watch_file(link, max_bytes=100)
        assert await following(watch) == b"a"
        (tmp_path / "next").symlink_to(tmp_path / "b")
        (tmp_path / "next").rename(link)
        assert await following(watch) == b"b"

    asyncio.run(scenario())


def test_a_file_that_is_too_large_is_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "model.json"
        path.write_bytes(b"x" * 1000)
        assert await following(watch_file(path, max_bytes=100)) == b"x" * 100

    asyncio.run(scenario())


def test_a_fifo_is_no_file_and_holds_nothing_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "model.json"
        os.mkfifo(path)
        watch = watch_file(path, max_bytes=100)
        assert await following(watch) is None
        path.unlink()
        path.write_bytes(b"one")
        assert await following(watch) == b"one"

    asyncio.run(scenario())


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
