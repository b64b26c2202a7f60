from collections.abc import Callable
from dataclasses import replace
from typing import Any

from extproc.learning.dataset import clean_observations
from extproc.learning.fit import fit
from extproc.learning.model_file import ModelFile, dump
from extproc.learning.model_in_use import Answer, ModelSlot


def test_an_empty_slot_has_no_model() -> None:
    assert ModelSlot().current is None


def test_a_good_file_is_taken_into_use(model_bytes: bytes) -> None:
    slot = ModelSlot()
    assert slot.offer(model_bytes, at_s=5.0).answer == Answer.ACCEPTED
    assert slot.current is not None
    assert (slot.accepted, slot.refused, slot.accepted_at_s) == (1, 0, 5.0)


def test_a_bad_file_is_refused_with_a_reason_and_the_good_one_stays(model_bytes: bytes) -> None:
    slot = ModelSlot()
    slot.offer(model_bytes, at_s=5.0)
    model = slot.current
    verdict = slot.offer(model_bytes[:-100], at_s=6.0)
    assert verdict.answer == Answer.REFUSED
    assert "not a whole model file" in verdict.reason
    assert slot.last_refusal == verdict.reason
    assert slot.current is model
    assert (slot.accepted, slot.refused, slot.accepted_at_s) == (1, 1, 5.0)


def test_a_good_file_after_a_bad_one_leaves_no_refusal(model_bytes: bytes) -> None:
    slot = ModelSlot()
    slot.offer(b"garbage", at_s=5.0)
    assert slot.last_refusal is not None
    slot.offer(model_bytes, at_s=6.0)
    assert (slot.last_refusal, slot.refused) == (None, 1)


def test_the_same_content_again_changes_and_counts_nothing(model_bytes: bytes) -> None:
    slot = ModelSlot()
    for content in (model_bytes, b"garbage"):
        slot.offer(content, at_s=5.0)
        model, counts = slot.current, (slot.accepted, slot.refused, slot.accepted_at_s)
        assert slot.offer(content, at_s=6.0).answer == Answer.UNCHANGED
        assert slot.current is model
        assert (slot.accepted, slot.refused, slot.accepted_at_s) == counts


def test_a_better_model_replaces_the_one_in_use(
    model_bytes: bytes, samples_of: Callable[..., dict[str, Any]]
) -> None:
    slot = ModelSlot()
    slot.offer(model_bytes, at_s=5.0)
    newer = fit(clean_observations(samples_of(seed=2))[0], seed=7, trained_at_s=1.8e9).model_file
    assert slot.offer(dump(newer), at_s=6.0).answer == Answer.ACCEPTED
    assert slot.current is not None
    assert slot.current.manifest.model_version == newer.manifest.model_version
    assert (slot.accepted, slot.accepted_at_s) == (2, 6.0)


def test_a_refusal_is_told_in_bounded_words(model_file: ModelFile) -> None:
    names = tuple("x" * 250 for _ in range(60))
    slot = ModelSlot()
    verdict = slot.offer(
        dump(replace(model_file, manifest=replace(model_file.manifest, features=names))), 1.0
    )
    assert verdict.reason.startswith("made for the features")
    assert len(verdict.reason) == 500
