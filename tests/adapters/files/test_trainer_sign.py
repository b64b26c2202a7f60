import asyncio
import time
from pathlib import Path

from support.patience import PATIENCE_S, until

from extproc.adapters.files.trainer_sign import TrainerSign, TrainerWatch, sign_path


async def seen_at_s(model_path: Path, is_expected: bool) -> float | None:
    """Look once, and return what was seen."""
    watch = TrainerWatch(model_path)
    watch.seen_at_s = None if is_expected else 1.0
    looking = asyncio.create_task(watch.follow())
    await until(lambda: (watch.seen_at_s is not None) == is_expected)
    looking.cancel()
    return watch.seen_at_s


def test_a_sign_is_seen_with_its_time(tmp_path: Path) -> None:
    TrainerSign(tmp_path / "model.json").give()
    at_s = asyncio.run(seen_at_s(tmp_path / "model.json", is_expected=True))
    assert at_s is not None
    assert abs(time.time() - at_s) < PATIENCE_S


def test_without_a_sign_or_with_something_else_in_its_place_nothing_is_seen(tmp_path: Path) -> None:
    for model_path in (tmp_path / "model.json", tmp_path / "absent" / "model.json"):
        assert asyncio.run(seen_at_s(model_path, is_expected=False)) is None
    sign_path(tmp_path / "model.json").mkdir()
    assert asyncio.run(seen_at_s(tmp_path / "model.json", is_expected=False)) is None


def test_the_file_is_not_touched_at_every_step(tmp_path: Path) -> None:
    sign = TrainerSign(tmp_path / "model.json")
    sign.give()
    sign_path(tmp_path / "model.json").unlink()
    sign.give()
    assert not sign_path(tmp_path / "model.json").exists()
