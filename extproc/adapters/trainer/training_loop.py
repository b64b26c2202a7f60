"""The trainer: reads what sidecars have recorded, and publishes a model where it has found a better one.

It is a process of its own, beside the sidecar and at the lowest priority, so learning costs a request
nothing. All that they share are three files: the sample store, which it only reads, the model file, which
it replaces by rename and the sidecar watches, and its sign of life (see `trainer_sign`). It keeps no state of
its own: started again, it reads the store from the beginning.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import numpy as np

from extproc.adapters.condition_log import REPEAT_S, ConditionLog
from extproc.adapters.files.trainer_sign import TrainerSign
from extproc.adapters.stop_signals import StopSignals
from extproc.adapters.trainer.cursor import CHUNK_ROWS, COLUMNS, SampleCursor, plausible
from extproc.adapters.trainer.published_model import Incumbent, publish
from extproc.adapters.trainer.schedule import Occasion, TrainingSchedule
from extproc.config.stages import Config, load_config
from extproc.errors import ConfigError, ExtprocError, SampleStoreError
from extproc.learning.dataset import Dropped, clean_observations, medium_zone
from extproc.learning.drift import DriftWatch
from extproc.learning.features import DEFAULT_ZONE, ZoneBounds
from extproc.learning.fit import Training, fit
from extproc.learning.model_rules import GateRule
from extproc.learning.predictor import Predictor
from extproc.learning.tuning import candidates
from extproc.learning.window import Window

logger = logging.getLogger(__name__)

LOWEST_PRIORITY = 19
_NAP_S = 0.1


class Trainer:
    """Everything between one sample store and one model file. `should_stop` ends the search for settings."""

    def __init__(
        self,
        samples: Path,
        config: Config,
        zone: ZoneBounds,
        rng: np.random.Generator,
        should_stop: Callable[[], bool],
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        self.dropped: Counter[Dropped] = Counter()
        self.window = Window(zone, config.trainer.rows_per_stratum)
        self._rules = config.trainer
        self._gate_rule = GateRule(config.trainer.margin)
        self._stale_after_s = config.scrape.stale_after_s
        self._model_path = config.model.path
        self._zone = zone
        self._rng = rng
        self._should_stop = should_stop
        self._cursor = SampleCursor(samples, COLUMNS, chunk_rows)
        self._incumbent = Incumbent(config.model.path)
        self._drift = DriftWatch(config.predict)
        self._schedule = TrainingSchedule(
            self._rules.interval_s, self._rules.min_new_samples, time.monotonic()
        )
        self._reading = ConditionLog(logger, "store_unreadable", "store_readable")
        self._sign = TrainerSign(config.model.path)
        self._signing = ConditionLog(logger, "trainer_sign_failed", "trainer_sign_written")
        self._reported_s = -REPEAT_S
        self._reported: Counter[Dropped] = Counter()

    def step(self) -> bool:
        """Read what is new, and train if it is time to; returns whether more is waiting to be read."""
        model = self._incumbent.current()
        self._drift.begin(None if model is None else model.manifest.model_version)
        if self._read():
            self._give_sign()
        self._report_dropped()
        if not self._cursor.is_behind:
            self._train_if_due(model)
        return self._cursor.is_behind

    def _read(self) -> bool:
        """Return whether the store could be read."""
        try:
            columns = self._cursor.read()
        except SampleStoreError as error:
            self._reading.failed(str(error), time.monotonic())
            return False
        self._reading.holds()
        columns = plausible(columns, time.time())
        observations, dropped = clean_observations(columns, self._stale_after_s)
        self.dropped.update(dropped)
        self.window.add(observations)
        self._schedule.saw(len(medium_zone(observations, self._zone)))
        self._drift.observe(columns)
        return True

    def _give_sign(self) -> None:
        """Let sidecars see that the trainer runs and reads; without it, it trains all the same."""
        try:
            self._sign.give()
        except OSError as error:
            self._signing.failed(str(error), time.monotonic())
        else:
            self._signing.holds()

    def _report_dropped(self) -> None:
        """Say how many rows were dropped so far, where there are more, and not too often."""
        counts = +self.dropped + Counter({Dropped.DUPLICATE: self.window.duplicates})
        now_s = time.monotonic()
        if counts == self._reported or now_s - self._reported_s < REPEAT_S:
            return
        self._reported, self._reported_s = counts, now_s
        logger.info("samples_dropped %s", " ".join(f"{why}={count}" for why, count in counts.items()))

    def _train_if_due(self, incumbent: Predictor | None) -> None:
        drift_samples = max(self._drift.drifted.values(), default=0)
        occasion = self._schedule.due(
            time.monotonic(), has_model=incumbent is not None, drift_samples=drift_samples
        )
        if occasion is None:
            return
        is_published = self._try(occasion, incumbent)
        self._schedule.tried(
            occasion, time.monotonic(), is_published=is_published, drift_samples=drift_samples
        )

    def _try(self, occasion: Occasion, incumbent: Predictor | None) -> bool:
        """Return whether a better model was made and published."""
        try:
            training = self._train(occasion, incumbent)
            if training.verdict.is_accepted:
                self._publish(training, occasion)
                return True
            reason = training.verdict.reason
        except ExtprocError as error:
            reason = str(error)
        except Exception:  # unforeseen data must not end the process: it would meet it again
            logger.exception("training_failed reason=%s", occasion)
            return False
        logger.info("model_not_published reason=%s", reason)
        return False

    def _train(self, occasion: Occasion, incumbent: Predictor | None) -> Training:
        observations = self.window.observations()
        logger.info(
            "training_began reason=%s samples=%d drifted=%s",
            occasion, len(observations), ",".join(sorted(self._drift.drifted)) or "none",
        )  # fmt: skip
        deadline_s = time.monotonic() + self._rules.tuning_s
        return fit(
            observations,
            settings=takewhile(
                lambda _: time.monotonic() < deadline_s and not self._should_stop(), candidates(self._rng)
            ),
            incumbent=incumbent,
            rule=self._gate_rule,
            seed=int(self._rng.integers(1 << 31)),
            trained_at_s=time.time(),
            zone=self._zone,
        )

    def _publish(self, training: Training, occasion: Occasion) -> None:
        publish(training, self._model_path)
        verdict = training.verdict
        logger.info(
            "model_published version=%s reason=%s error=%.4f plain_error=%.4f incumbent_error=%s"
            " judged_by=%d",
            training.model_file.manifest.model_version,
            occasion,
            verdict.error,
            verdict.plain_error,
            "none" if verdict.incumbent_error is None else f"{verdict.incumbent_error:.4f}",
            verdict.samples,
        )


def run_trainer(config_path: Path) -> None:
    """Train until SIGTERM, SIGINT or SIGHUP. Raises ConfigError where there is nothing to train on."""
    config = load_config(config_path)
    samples, zone = _samples_path(config, config_path), _zone(config, config_path)
    os.setpriority(os.PRIO_PROCESS, 0, LOWEST_PRIORITY)
    with StopSignals() as signals:
        trainer = Trainer(samples, config, zone, np.random.default_rng(), lambda: signals.is_requested)
        logger.info("trainer_started samples=%s model=%s", samples, config.model.path)
        while not signals.is_requested:
            if not trainer.step():
                _nap(config.trainer.poll_s, signals)
    logger.info("trainer_stopped")


def _samples_path(config: Config, config_path: Path) -> Path:
    if config.samples.path is None:
        raise ConfigError(f"{config_path}: samples.path is not set, so there is nothing to learn from")
    return config.samples.path


def _zone(config: Config, config_path: Path) -> ZoneBounds:
    if config.zones.low_s >= DEFAULT_ZONE.saturated_s:
        raise ConfigError(
            f"{config_path}: zones.low_s must be below {DEFAULT_ZONE.saturated_s:g}, where the medium zone"
            " ends: a model is made from what lies between"
        )
    return ZoneBounds(config.zones.low_s, DEFAULT_ZONE.saturated_s)


def _nap(duration_s: float, signals: StopSignals) -> None:
    """Sleep in pieces: a signal ends no `time.sleep`."""
    until_s = time.monotonic() + duration_s
    while not signals.is_requested and (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(left_s, _NAP_S))
