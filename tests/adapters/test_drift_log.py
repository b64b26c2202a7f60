import logging

import pytest
from support.running_parts import Parts

from extproc.adapters.drift_log import DriftLog


@pytest.fixture
def log(parts: Parts, caplog: pytest.LogCaptureFixture) -> DriftLog:
    caplog.set_level(logging.INFO)
    return DriftLog(parts.core)


def mispredict(parts: Parts) -> None:
    """The model is farther off on `vllm-1` than the plain estimate."""
    parts.offer_shipped_model()
    parts.predict(log_corrected=0.5, log_plain=0.2)


def test_that_layer_2_stands_down_is_said_once_and_so_is_its_return(
    parts: Parts, log: DriftLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.look(1.0)
    assert caplog.messages == [], "there is no model"
    mispredict(parts)
    log.look(2.0)
    log.look(3.0)
    (said,) = caplog.messages
    assert said.startswith("model_distrusted name=vllm-1 error=")
    assert said.endswith("error=0.500, the estimate alone 0.200")
    parts.predict(log_corrected=0.1, log_plain=0.2)
    log.look(4.0)
    log.look(5.0)
    assert caplog.messages[1:] == ["model_trusted name=vllm-1"]


def test_of_a_backend_that_has_left_nothing_more_is_said(
    parts: Parts, log: DriftLog, caplog: pytest.LogCaptureFixture
) -> None:
    mispredict(parts)
    log.look(1.0)
    log.keep_only({"vllm-2"})
    parts.predict(log_corrected=0.1, log_plain=0.2)
    log.look(2.0)
    assert len(caplog.messages) == 1
