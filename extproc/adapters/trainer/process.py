"""Runs a trainer until it is told to stop."""

import logging
import os
import time
from pathlib import Path

import numpy as np

from extproc.adapters.stop_signals import StopSignals
from extproc.adapters.trainer.training_loop import Trainer
from extproc.config.stages import Config, load_config
from extproc.errors import ConfigError
from extproc.learning.zone_bounds import DEFAULT_ZONE, ZoneBounds

LOWEST_PRIORITY = 19
_NAP_S = 0.1

logger = logging.getLogger(__name__)


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
