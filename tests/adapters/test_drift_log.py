import logging

import pytest
from support.running_parts import Parts

from extproc.adapters.drift_log import DriftLog


@pytest.fixture
def log(parts: Parts, caplog: pytest.LogCaptureFixture) -> DriftLog:
    caplog.set_level(logging.INFO)
    return DriftLog(parts.core)


def mispredict(parts: Parts) -> float:
    """The model is far off on `vllm-1`; the error that it had promised."""
    parts.offer_shipped_model()
    model = parts.core.model.current
    assert model is not None
    for ttft_s in (0.01, 100.0) * 10:
        parts.backend().predictions.observe(model.manifest.model_version, 0.0, ttft_s)
    return model.promised_error


def test_that_layer_2_stands_down_is_said_once_and_so_is_its_return(
    parts: Parts, log: DriftLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.look(1.0)
    assert caplog.messages == [], "there is no model"
    promised = mispredict(parts)
    log.look(2.0)
    log.look(3.0)
    (said,) = caplog.messages
    assert said.startswith("layer2_stands_down name=vllm-1 error=")
    assert said.endswith(f"promised {promised:.3f}")
    parts.backend().predictions.begin(None)
    log.look(4.0)
    log.look(5.0)
    assert caplog.messages[1:] == ["layer2_returned name=vllm-1"]


def test_of_a_backend_that_has_left_nothing_more_is_said(
    parts: Parts, log: DriftLog, caplog: pytest.LogCaptureFixture
) -> None:
    mispredict(parts)
    log.look(1.0)
    log.keep_only({"vllm-2"})
    parts.backend().predictions.begin(None)
    log.look(2.0)
    assert len(caplog.messages) == 1
