from collections.abc import Callable
from dataclasses import replace
from typing import Any

from extproc.learning.dataset import clean_observations
from extproc.learning.fit import fit
from extproc.learning.model_file import ModelFile, dump
from extproc.learning.model_in_use import ModelInUse, read_offer


def test_before_the_first_offer_there_is_no_model() -> None:
    assert ModelInUse().current is None


def test_a_good_file_is_taken_into_use(model_bytes: bytes) -> None:
    model = ModelInUse()
    assert model.take(read_offer(model_bytes))
    assert model.current is not None
    assert (model.accepted, model.refused) == (1, 0)


def test_a_bad_file_is_refused_with_a_reason_and_the_good_one_stays(model_bytes: bytes) -> None:
    model = ModelInUse()
    model.take(read_offer(model_bytes))
    current, offer = model.current, read_offer(model_bytes[:-100])
    assert offer.predictor is None
    assert "not a whole model file" in offer.refused
    assert not model.take(offer)
    assert model.last_refusal == offer.refused
    assert model.current is current
    assert (model.accepted, model.refused) == (1, 1)


def test_a_good_file_after_a_bad_one_leaves_no_refusal(model_bytes: bytes) -> None:
    model = ModelInUse()
    model.take(read_offer(b"garbage"))
    assert model.last_refusal is not None
    model.take(read_offer(model_bytes))
    assert (model.last_refusal, model.refused) == (None, 1)


def test_the_same_content_again_changes_and_counts_nothing(model_bytes: bytes) -> None:
    model = ModelInUse()
    for content in (model_bytes, b"garbage"):
        model.take(read_offer(content))
        current, counts = model.current, (model.accepted, model.refused)
        assert not model.take(read_offer(content))
        assert model.current is current
        assert (model.accepted, model.refused) == counts


def test_a_better_model_replaces_the_one_in_use(
    model_bytes: bytes, samples_of: Callable[..., dict[str, Any]]
) -> None:
    model = ModelInUse()
    model.take(read_offer(model_bytes))
    newer = fit(clean_observations(samples_of(seed=2))[0], seed=7, trained_at_s=1.8e9).model_file
    assert model.take(read_offer(dump(newer)))
    assert model.current is not None
    assert model.current.manifest.model_version == newer.manifest.model_version
    assert model.accepted == 2


def test_reading_an_offer_changes_nothing_until_it_is_taken(model_bytes: bytes) -> None:
    model = ModelInUse()
    read_offer(model_bytes)
    read_offer(b"garbage")
    assert (model.current, model.accepted, model.refused, model.last_refusal) == (None, 0, 0, None)


def test_a_refusal_has_a_bounded_length(model_file: ModelFile) -> None:
    names = tuple("x" * 250 for _ in range(60))
    offer = read_offer(dump(replace(model_file, manifest=replace(model_file.manifest, features=names))))
    assert offer.refused.startswith("made for the features")
    assert len(offer.refused) == 500
