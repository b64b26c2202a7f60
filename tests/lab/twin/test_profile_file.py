import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.recorded_loads import LIMITS, SERVER

from extproc.adapters.files.atomic_file import write_json
from extproc.errors import CalibrationError, ConfigError
from extproc.lab.engine.engine_profile import PROFILES
from extproc.lab.twin.profile_file import (
    Origin,
    ProfileFile,
    find_profile,
    read_profile_file,
)

CONTENT = ProfileFile(
    profile=SERVER,
    limits=LIMITS,
    origin=Origin("samples.db", "vllm-1", 1.7e9, 100, 0.1, {"base_step_s": 0.02}),
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    write_json(path, CONTENT, CalibrationError)
    assert read_profile_file(path) == CONTENT
    assert find_profile(str(path)) == SERVER


def test_a_shipped_profile_is_found_by_its_name() -> None:
    assert find_profile("a100-8b") is PROFILES["a100-8b"]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="No such file"):
        write_json(tmp_path / "absent" / "mine.json", CONTENT, CalibrationError)


@pytest.mark.parametrize(
    ("part", "changes", "fault"),
    [
        ("profile", {"base_step_s": 0.0}, "no machine"),
        ("profile", {"prefill_token_s": -1e-4}, "no machine"),
        ("profile", {"speed": 0.0}, "no machine"),
        ("profile", {"prefil_token_s": 1e-4}, "not an engine profile: .*prefil_token_s"),
        ("profile", {"base_step_s": "fast"}, "not an engine profile"),
        ("limits", {"max_num_seqs": 0}, "max_num_seqs must be at least 1"),
        ("", {"format": "extproc-engine-profile-2"}, "not an engine profile"),
    ],
)
def test_what_is_no_profile_is_refused(
    tmp_path: Path, part: str, changes: dict[str, Any], fault: str
) -> None:
    path = tmp_path / "mine.json"
    document = json.loads(msgspec.json.encode(CONTENT))
    (document[part] if part else document).update(changes)
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=fault):
        find_profile(str(path))


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"[]"])
def test_what_is_no_json_of_ours_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.json"):
        find_profile(str(path))
