from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.errors import ModelFileError
from extproc.learning.features import FEATURES, ZoneBounds
from extproc.learning.manifest import Manifest
from extproc.learning.model_file import MAX_FILE_BYTES, ModelFile, SelfTest, dump, load, model_version
from extproc.learning.trees import MAX_TREES, Split


def test_a_dumped_model_loads_and_passes_its_self_test(model_file: ModelFile) -> None:
    predictor = load(dump(model_file))
    assert predictor.manifest == model_file.manifest
    rows = np.array(model_file.self_test.rows)
    np.testing.assert_array_equal(predictor.log_corrections(rows), model_file.self_test.log_corrections)


def test_the_layout_of_the_json_does_not_matter(model_bytes: bytes) -> None:
    document = msgspec.json.decode(model_bytes)
    shuffled = dict(reversed(document.items()))
    assert load(msgspec.json.encode(shuffled)).manifest == load(model_bytes).manifest


def test_the_version_tells_models_and_times_apart() -> None:
    trees, at = (0.5, Split(1, 2.0, 0.1, 0.2)), "2026-01-01T00:00:00+00:00"
    first = model_version(trees, at)
    assert first == model_version(trees, at)
    assert len({first, model_version(trees[:1], at), model_version(trees, "later")}) == 3


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
        b'{"manifest": {"format_version": 4}}',
        b'{"manifest": {"format_version": NaN}}',
        b'{"manifest": {"format_version": 4}, "trees": "\xff"}',
        b"[" * 1_000_000,
        b'{"deep":' + b"[" * 1_000_000,
    ],
)
def test_what_is_no_model_file_is_refused(data: bytes) -> None:
    with pytest.raises(ModelFileError, match="not a whole model file"):
        load(data)


@pytest.mark.parametrize("version", [3, 5])
def test_another_format_version_is_named_and_the_way_out_of_it(model_bytes: bytes, version: int) -> None:
    other = model_bytes.replace(b'"format_version": 4', b'"format_version": %d' % version)
    with pytest.raises(ModelFileError, match=f"format version {version}; 4 is read: train a new model"):
        load(other)


def test_a_file_that_holds_its_trees_as_text_is_refused_as_old() -> None:
    old = {"manifest": {"format_version": 2, "zone_classifier": None}, "trees": "tree\nversion=v4\n"}
    with pytest.raises(ModelFileError, match="format version 2; 4 is read: train a new model"):
        load(msgspec.json.encode(old))


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
        ({"target": "log_ttft_s"}, "'log_ttft_s'"),
        ({"zone_bounds": ZoneBounds(10.0, 1.0)}, "low_s"),
        ({"zone_bounds": ZoneBounds(0.0, 1.0)}, "low_s"),
        ({"trained_at": "yesterday"}, "trained_at"),
        ({"trained_at": "2026-01-01T00:00:00"}, "trained_at"),
        ({"trained_at": "2026-01-01T00:00:00+02:00"}, "trained_at"),
        ({"model_version": ""}, "model_version"),
        ({"verdict": None}, "verdict"),
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
    off = tuple(value + 0.001 for value in model_file.self_test.log_corrections)
    with pytest.raises(ModelFileError, match=r"disagrees by 0\.001"):
        load(dump(replace(model_file, self_test=SelfTest(model_file.self_test.rows, off))))


@pytest.mark.parametrize(
    "self_test",
    [
        SelfTest((), ()),
        SelfTest(((1.0,),), (1.0,)),
        SelfTest(((1.0,) * len(FEATURES),), (1.0, 2.0)),
        SelfTest(((1.0,) * len(FEATURES),) * 65, (1.0,) * 65),
    ],
)
def test_a_self_test_of_another_shape_is_refused(model_file: ModelFile, self_test: SelfTest) -> None:
    with pytest.raises(ModelFileError, match=r"self-test|self_test"):
        load(dump(replace(model_file, self_test=self_test)))


def nested(depth: int) -> object:
    node: object = 0.0
    for _ in range(depth):
        node = {"feature": 2, "threshold": 1.0, "left": node, "right": 0.5}
    return node


@pytest.mark.parametrize(
    ("trees", "complaint"),
    [
        ("tree\nversion=v4\nend of trees", "trees"),
        ((), "trees"),
        ((0.0,) * (MAX_TREES + 1), "trees"),
        ((0.0,) * 100_000, "trees"),
        (("tree",), "trees"),
        ((60.0,), "trees"),
        (({"leaf_value": 0.1},), "trees"),
        ((nested(400),), "401 leaves"),
        ((6.0, 6.0), "could reach"),
    ],
)
def test_a_sealed_file_with_trees_that_are_none_is_refused(
    model_file: ModelFile, trees: Any, complaint: str
) -> None:
    with pytest.raises(ModelFileError, match=complaint):
        load(dump(replace(model_file, trees=trees)))


@pytest.mark.parametrize("depth", [500, 100_000])
def test_trees_of_absurd_depth_are_refused(model_bytes: bytes, depth: int) -> None:
    deep = b'{"feature":2,"threshold":1,"right":0,"left":' * depth + b"0" + b"}" * depth
    data = model_bytes.replace(b'"trees": [', b'"trees": [' + deep + b",")
    assert data != model_bytes
    with pytest.raises(ModelFileError):
        load(data)


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
def test_whatever_sealed_trees_are_a_file_loads_or_is_refused(
    model_file: ModelFile, data: st.DataObject
) -> None:
    text = msgspec.json.encode(model_file.trees[:3])
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 3))
    patch = data.draw(st.text('0123456789-.e,:{}[]"', max_size=3)).encode()
    try:
        trees = msgspec.json.decode(text[:start] + patch + text[start + length :])
        predictor = load(dump(replace(model_file, trees=trees)))
    except (msgspec.DecodeError, ModelFileError):
        return
    assert np.isfinite(predictor.log_corrections(np.zeros((3, len(FEATURES))))).all()
