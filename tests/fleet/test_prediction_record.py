import pytest
from support.build import trust_rule

from extproc.fleet.prediction_record import WINDOW, PredictedOutcome, PredictionRecord, RankRecord

GOOD, BAD = 0.1, 0.3
NEEDED = 8


def a_record(version: str | None = "v1", ranking: RankRecord | None = None) -> PredictionRecord:
    record = PredictionRecord(trust_rule(min_outcomes=NEEDED), RankRecord())
    record.begin(version, ranking or RankRecord())
    return record


@pytest.fixture
def record() -> PredictionRecord:
    return a_record()


def outcome(corrected: float, plain: float, **changes: float | str) -> PredictedOutcome:
    """An outcome of which either estimate was so far off, in log seconds."""
    fields = {"backend": "vllm-1", "at_s": 0.0, "tokens": 100.0, "log_ttft": 0.0}
    return PredictedOutcome(**fields | changes | {"log_corrected": corrected, "log_plain": plain})  # type: ignore[arg-type]


def feed(record: PredictionRecord, count: int, corrected: float, plain: float, version: str = "v1") -> None:
    for _ in range(count):
        record.observe(version, outcome(corrected, plain))


def test_a_model_has_no_say_before_it_was_better_for_some_outcomes(record: PredictionRecord) -> None:
    feed(record, NEEDED - 1, GOOD, BAD)
    assert not record.is_trusted
    feed(record, 1, GOOD, BAD)
    assert record.is_trusted
    assert (record.error, record.plain_error) == (pytest.approx(GOOD), pytest.approx(BAD))


def test_a_model_that_is_hardly_better_than_none_does_not_begin(record: PredictionRecord) -> None:
    feed(record, 10 * NEEDED, 0.99 * BAD, BAD)
    assert not record.is_trusted


def test_too_short_and_too_long_are_both_errors(record: PredictionRecord) -> None:
    for sign in (-1, 1) * NEEDED:
        record.observe("v1", outcome(sign * BAD, sign * GOOD))
    assert not record.is_trusted
    assert record.error == pytest.approx(BAD)


def test_a_model_that_becomes_worse_stands_down_and_comes_back_when_it_is_better_again(
    record: PredictionRecord,
) -> None:
    feed(record, WINDOW, GOOD, BAD)
    assert record.is_trusted
    feed(record, 2 * WINDOW, BAD, GOOD)
    assert not record.is_trusted
    feed(record, 2 * WINDOW, GOOD, BAD)
    assert record.is_trusted


def test_one_absurd_outcome_is_forgotten(record: PredictionRecord) -> None:
    feed(record, WINDOW, GOOD, BAD)
    feed(record, 1, 50.0, GOOD)
    assert not record.is_trusted
    feed(record, 4 * WINDOW, GOOD, BAD)
    assert record.is_trusted


def test_the_outcomes_of_one_backend_do_not_tell_how_well_another_is_predicted(
    record: PredictionRecord,
) -> None:
    other = a_record()
    feed(record, NEEDED, GOOD, BAD)
    assert (other.is_trusted, other.error) == (False, None)


def test_another_model_has_to_earn_its_say_anew_and_the_same_one_has_not(record: PredictionRecord) -> None:
    feed(record, NEEDED, GOOD, BAD)
    record.begin("v1", RankRecord())
    assert record.is_trusted
    record.begin("v2", RankRecord())
    assert (record.is_trusted, record.error) == (False, None)


def test_late_outcomes_of_the_previous_model_are_ignored(record: PredictionRecord) -> None:
    record.begin("v2", RankRecord())
    feed(record, NEEDED, GOOD, BAD, version="v1")
    assert record.error is None


def test_before_there_is_a_model_no_outcome_counts() -> None:
    record = PredictionRecord(trust_rule(), RankRecord())
    feed(record, NEEDED, GOOD, BAD)
    assert record.error is None


def pair(
    ranking: RankRecord, corrected: tuple[float, float], plain: tuple[float, float], **second: float
) -> None:
    """Two outcomes on two backends, of which the second took twice as long as the first."""
    ranking.observe(outcome(corrected[0], plain[0], log_ttft=0.0))
    ranking.observe(
        outcome(corrected[1], plain[1], **{"backend": "vllm-2", "log_ttft": 0.7} | second)  # type: ignore[arg-type]
    )


RIGHT, WRONG = (0.0, 0.1), (0.1, 0.0)


def test_a_model_that_predicts_well_and_puts_backends_into_the_wrong_order_has_no_say() -> None:
    ranking = RankRecord()
    record = a_record(ranking=ranking)
    pair(ranking, WRONG, RIGHT)
    feed(record, NEEDED, GOOD, BAD)
    assert not record.is_trusted
    for _ in range(2 * WINDOW):
        pair(ranking, RIGHT, WRONG)
    feed(record, 1, GOOD, BAD)
    assert record.is_trusted


@pytest.mark.parametrize(
    "second", [{"at_s": 1.5}, {"tokens": 130.0}, {"log_ttft": 0.1}, {"backend": "vllm-1"}]
)
def test_outcomes_that_cannot_be_compared_say_nothing_of_the_order(second: dict[str, float]) -> None:
    ranking = RankRecord()
    pair(ranking, WRONG, RIGHT, **second)
    assert ranking.is_no_worse
