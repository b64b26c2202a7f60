from extproc.adapters.trainer.schedule import MIN_DRIFT_SAMPLES, Occasion, TrainingSchedule
from extproc.learning.fit import MIN_SAMPLES

INTERVAL_S = 300.0
MIN_NEW = 20


def schedule(seen: int = 0) -> TrainingSchedule:
    made = TrainingSchedule(INTERVAL_S, MIN_NEW, now_s=0.0)
    made.saw(seen)
    return made


def due(
    made: TrainingSchedule, now_s: float, *, has_model: bool = True, drift_samples: int = 0
) -> Occasion | None:
    return made.due(now_s, has_model=has_model, drift_samples=drift_samples)


def test_the_first_model_is_made_as_soon_as_there_is_enough() -> None:
    made = schedule(MIN_SAMPLES - 1)
    assert due(made, 1.0, has_model=False) is None
    made.saw(1)
    assert due(made, 1.0, has_model=False) is Occasion.NO_MODEL
    assert due(made, 1.0) is None


def test_a_refused_first_model_waits_for_as_much_again_each_time() -> None:
    made = schedule()
    tried = []
    for seen in range(1, MIN_SAMPLES * 8 + 1):
        made.saw(1)
        if occasion := due(made, 1.0, has_model=False):
            tried.append(seen)
            made.tried(occasion, 1.0, is_published=False, drift_samples=0)
    assert tried == [MIN_SAMPLES * factor for factor in (1, 2, 4, 8)]


def test_on_schedule_both_the_time_and_the_samples_have_to_be_there() -> None:
    made = schedule(MIN_NEW)
    assert due(made, INTERVAL_S - 1) is None
    assert due(made, INTERVAL_S) is Occasion.SCHEDULE
    assert due(schedule(MIN_NEW - 1), INTERVAL_S * 10) is None


def test_a_scheduled_run_waits_for_the_next_interval_and_for_new_samples() -> None:
    for is_published in (True, False):
        made = schedule(MIN_NEW)
        made.tried(Occasion.SCHEDULE, INTERVAL_S, is_published=is_published, drift_samples=0)
        assert due(made, INTERVAL_S * 3) is None
        made.saw(MIN_NEW)
        assert due(made, INTERVAL_S * 2 - 1) is None
        assert due(made, INTERVAL_S * 2) is Occasion.SCHEDULE


def test_a_drift_does_not_wait_for_the_interval() -> None:
    made = schedule()
    assert due(made, 1.0, drift_samples=MIN_DRIFT_SAMPLES - 1) is None
    assert due(made, 1.0, drift_samples=MIN_DRIFT_SAMPLES) is Occasion.DRIFT


def test_a_refused_challenger_of_a_drift_waits_for_as_much_again() -> None:
    made = schedule()
    made.tried(Occasion.DRIFT, 1.0, is_published=False, drift_samples=70)
    assert due(made, 2.0, drift_samples=139) is None
    assert due(made, 2.0, drift_samples=140) is Occasion.DRIFT


def test_after_a_new_model_the_next_drift_waits_no_longer_than_the_first() -> None:
    made = schedule()
    made.tried(Occasion.DRIFT, 1.0, is_published=False, drift_samples=70)
    made.tried(Occasion.DRIFT, 2.0, is_published=True, drift_samples=140)
    assert due(made, 3.0, drift_samples=MIN_DRIFT_SAMPLES) is Occasion.DRIFT


def test_a_hopeless_first_model_is_still_tried_on_schedule() -> None:
    made = schedule(MIN_SAMPLES)
    made.tried(Occasion.NO_MODEL, 1.0, is_published=False, drift_samples=0)
    made.saw(MIN_NEW)
    assert due(made, INTERVAL_S + 1, has_model=False) is Occasion.SCHEDULE
