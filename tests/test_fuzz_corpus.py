"""What fuzzing has found worth keeping, read again. `make fuzz` looks for more (`fuzz.campaign`)."""

import logging
from collections.abc import Iterator

import pytest
from fuzz.campaign import RUNS
from fuzz.sidecar_parts import hear_only_faults
from fuzz.targets import CORPUS, TARGETS, kept_inputs

MAX_CORPUS_BYTES = 256 * 1024


@pytest.fixture
def _only_faults() -> Iterator[None]:
    logger = logging.getLogger("extproc")
    level, handlers = logger.level, logger.handlers[:]
    hear_only_faults()
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.mark.usefixtures("_only_faults")
@pytest.mark.parametrize("target", TARGETS)
def test_every_kept_input_is_read_or_refused(target: str) -> None:
    inputs = kept_inputs(target)
    assert inputs
    for path in inputs:
        TARGETS[target](path.read_bytes())


def test_a_campaign_has_runs_for_every_target() -> None:
    assert list(RUNS) == list(TARGETS)


def test_the_corpus_is_small_and_has_inputs_of_every_target() -> None:
    assert {directory.name for directory in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.glob("*/*")) < MAX_CORPUS_BYTES
