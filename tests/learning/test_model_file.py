from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.errors import ModelFileError
from extproc.learning.features import FEATURES
from extproc.learning.log_line import LogLine
from extproc.learning.manifest import Manifest
from extproc.learning.model_file import MAX_FILE_BYTES, ModelFile, SelfTest, dump, load, model_version
from extproc.learning.zone_bounds import ZoneBounds


def test_a_dumped_model_loads_and_passes_its_self_test(model_file: ModelFile) -> None:
    predictor = load(dump(model_file))
    assert predictor.manifest == model_file.manifest
    rows = np.array(model_file.self_test.rows)
    np.testing.assert_array_equal(predictor.predict_log_ttft(rows), model_file.self_test.log_ttft)


def test_the_layout_of_the_json_does_not_matter(model_bytes: bytes) -> None:
    document = msgspec.json.decode(model_bytes)
    shuffled = dict(reversed(document.items()))
    assert load(msgspec.json.encode(shuffled)).manifest == load(model_bytes).manifest


def test_the_version_tells_models_and_times_apart() -> None:
    first = model_version("trees", "2026-01-01T00:00:00+00:00")
    assert first == model_version("trees", "2026-01-01T00:00:00+00:00")
    assert (
        len({first, model_version("other", "2026-01-01T00:00:00+00:00"), model_version("trees", "later")})
        == 3
    )


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(model_bytes: bytes, share: float) -> None:
    with pytest.raises(ModelFileError, match="not a whole model file"):
        load(model_bytes[: int(len(model_bytes) * share)])


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x95",
        b"tree\nversion=v4\n",
        b"null",
        b"[]",
        b"{}",
        b'{"manifest": 1}',
        b'{"manifest": {"format_version": 2}}',
        b'{"manifest": {"format_version": NaN}}',
        b'{"manifest": {"format_version": 2}, "trees": "\xff"}',
        b"[" * 1_000_000,
        b'{"deep":' + b"[" * 1_000_000,
    ],
)
def test_what_is_no_model_file_is_refused(data: bytes) -> None:
    with pytest.raises(ModelFileError, match="not a whole model file"):
        load(data)


def test_another_format_version_is_named(model_bytes: bytes) -> None:
    with pytest.raises(ModelFileError, match="format version 1"):
        load(model_bytes.replace(b'"format_version": 2', b'"format_version": 1'))


def test_an_absurdly_large_file_is_refused(model_bytes: bytes) -> None:
    with pytest.raises(ModelFileError, match="at most"):
        load(model_bytes + b" " * MAX_FILE_BYTES)


def test_a_changed_number_is_found_by_the_checksum(model_bytes: bytes) -> None:
    changed = model_bytes.replace(b'"held_out": ', b'"held_out": 1', 1)
    assert changed != model_bytes
    with pytest.raises(ModelFileError, match="checksum"):
        load(changed)


def resealed(model_file: ModelFile, **changes: object) -> bytes:
    """A file with a changed manifest whose checksum is right."""
    manifest: Manifest = replace(model_file.manifest, **changes)  # type: ignore[arg-type]  # any field
    return dump(replace(model_file, manifest=manifest))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"features": (*FEATURES, "moon_phase")}, "moon_phase"),
        ({"features": FEATURES[::-1]}, "made for the features"),
        ({"monotone": (0, 0, 0, 0, 0)}, "monotone"),
        ({"target": "ttft_s"}, "'ttft_s'"),
        ({"zone_bounds": ZoneBounds(10.0, 1.0)}, "low_s"),
        ({"zone_bounds": ZoneBounds(0.0, 1.0)}, "low_s"),
        ({"training_range": {"load": (0.0, 1.0)}}, "training_range"),
        ({"training_range": dict.fromkeys(FEATURES, (2.0, 1.0))}, "training_range of num_running"),
        ({"training_range": dict.fromkeys(FEATURES, (0.0, float("inf")))}, "training_range"),
        ({"trained_at": "yesterday"}, "trained_at"),
        ({"trained_at": "2026-01-01T00:00:00"}, "trained_at"),
        ({"trained_at": "2026-01-01T00:00:00+02:00"}, "trained_at"),
        ({"medium_load": -1.0}, "medium_load"),
        ({"model_version": ""}, "model_version"),
        ({"offsets": {"vllm-1": 11.0}}, "offsets"),
        ({"verdict": None}, "verdict"),
        ({"line": LogLine((0.0, -0.1, 0.0, 0.0, 0.0), 0.0)}, "line"),
        ({"line": LogLine((0.0, 1.0), 0.0)}, "line"),
        ({"held_out_errors": None}, "held_out_errors"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(
    model_file: ModelFile, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ModelFileError, match=complaint):
        load(resealed(model_file, **changes))


def test_an_impossible_share_is_refused(model_file: ModelFile) -> None:
    errors = replace(model_file.manifest.held_out_errors, share_within_20_percent=1.5)
    with pytest.raises(ModelFileError, match="share_within_20_percent"):
        load(resealed(model_file, held_out_errors=errors))


def test_trees_that_disagree_with_the_self_test_are_refused(model_file: ModelFile) -> None:
    off = tuple(value + 0.001 for value in model_file.self_test.log_ttft)
    with pytest.raises(ModelFileError, match=r"disagrees by 0\.001"):
        load(dump(replace(model_file, self_test=SelfTest(model_file.self_test.rows, off))))


@pytest.mark.parametrize(
    "self_test",
    [
        SelfTest((), ()),
        SelfTest(((1.0,),), (1.0,)),
        SelfTest(((1.0,) * 5,), (1.0, 2.0)),
        SelfTest(((1.0,) * 5,) * 65, (1.0,) * 65),
    ],
)
def test_a_self_test_of_another_shape_is_refused(model_file: ModelFile, self_test: SelfTest) -> None:
    with pytest.raises(ModelFileError, match=r"self-test|self_test"):
        load(dump(replace(model_file, self_test=self_test)))


@pytest.mark.parametrize(
    "trees", ["", "tree", "\n" * 1_000_000, "tree\n" + "\nTree=" * 100_000 + "\nend of trees"]
)
def test_a_sealed_file_with_a_text_that_is_no_model_is_refused(model_file: ModelFile, trees: str) -> None:
    with pytest.raises(ModelFileError):
        load(dump(replace(model_file, trees=trees)))


def test_trees_that_break_the_monotone_constraint_are_refused(model_file: ModelFile) -> None:
    flipped = (
        model_file.trees.replace("left_child", "x")
        .replace("right_child", "left_child")
        .replace("x=", "right_child=")
    )
    with pytest.raises(ModelFileError, match="monotone"):
        load(dump(replace(model_file, trees=flipped)))


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_the_bytes_are_a_file_loads_or_is_refused(model_bytes: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(model_bytes)))
    length = data.draw(st.integers(0, 40))
    patch = data.draw(st.binary(max_size=40))
    mutated = model_bytes[:start] + patch + model_bytes[start + length :]
    try:
        manifest = load(mutated).manifest
    except ModelFileError:
        return
    assert manifest == load(model_bytes).manifest, "only a change of white space may go unnoticed"


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_a_sealed_text_is_a_file_loads_or_is_refused(
    model_file: ModelFile, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(model_file.trees)))
    length = data.draw(st.integers(0, 20))
    patch = data.draw(st.text("0123456789-.e =\nTreaf", max_size=20))
    trees = model_file.trees[:start] + patch + model_file.trees[start + length :]
    try:
        predictor = load(dump(replace(model_file, trees=trees)))
    except ModelFileError:
        return
    assert np.isfinite(predictor.predict_log_ttft(np.zeros((3, len(FEATURES))))).all()
