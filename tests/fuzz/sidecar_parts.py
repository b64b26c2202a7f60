"""A whole sidecar that is not started, for fuzzing: wired by `app.py` itself, without sockets or files."""

import logging
import time
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from extproc.adapters.condition_log import ConditionLog
from extproc.app import Sidecar
from extproc.config import rules
from extproc.config.stages import parse_config
from extproc.learning.model_file import ModelFile
from extproc.learning.model_in_use import read_offer
from extproc.routing.queue.request_queue import RequestQueue

ROOT = Path(__file__).parents[2]
SHIPPED_MODEL = ROOT / "models" / "zone2_predictor.json"
CONFIG = """
backends:
  - {name: vllm-1, url: "http://127.0.0.1:8101", models: [m]}
  - {name: vllm-2, url: "http://127.0.0.1:8102", models: [m, adapter]}
  - {name: vllm-3, url: "http://127.0.0.1:8103"}
guard: {max_active: 1}
admission: {mode: queue, queue: {max_waiting: 3, min_priority: -5, max_priority: 5, tenant_header: x-tenant}}
"""


class Loud(logging.Handler):
    """A fault that a supervisor has caught and logged is one all the same."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            raise AssertionError(record.getMessage()) from record.exc_info[1]


def hear_only_faults() -> None:
    """Faults are raised; to log every refusal would be most of a fuzzer's work."""
    logger = logging.getLogger("extproc")
    logger.setLevel(logging.ERROR)
    logger.addHandler(Loud())


class _Faults(ConditionLog):
    """Raises what a sidecar only logs."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("extproc"), "entry_failed")

    def failed(self, error: str, _: float, **__: str) -> None:
        raise AssertionError(error)


class Parts:
    """The sidecar, and the parts of it to which bytes from outside are fed."""

    def __init__(self) -> None:
        config = parse_config(CONFIG, "fuzz")
        sidecar = Sidecar(config, Path("extproc.yaml"), np.random.default_rng(0))
        backends = rules.backends(config)
        self.core = sidecar._core
        self.backends = self.core.set_members(backends, time.monotonic(), backends)
        self.server = sidecar._server
        self.service = self.server._service  # type: ignore[attr-defined]  # the thin transport's
        self.server.flush_soon = lambda: None  # type: ignore[attr-defined]  # no connection, no event loop
        self.learn = sidecar.handle_entries
        sidecar._learning = _Faults()

    @property
    def own(self) -> int:
        """The requests in flight on all backends."""
        return sum(backend.own for backend in self.backends)

    @property
    def queue(self) -> RequestQueue:
        """Where requests wait."""
        assert self.core.queue is not None
        return self.core.queue

    def offer_shipped_model(self) -> str:
        """Use it, and return its version: then outcomes are held against it."""
        self.core.use_model(read_offer(SHIPPED_MODEL.read_bytes()))
        return shipped_model().manifest.model_version

    def check(self) -> None:
        """Whatever came from outside, decisions can be made, and every number is one."""
        view = self.core.fleet.view(self.backends, time.monotonic())
        for backend in self.backends:
            known = view.facts(backend)
            numbers = (
                known.load,
                known.num_running,
                known.num_waiting,
                known.kv_cache_fraction,
                backend.predictions.error or 0.0,
                backend.predictions.plain_error or 0.0,
            )
            assert np.isfinite(numbers).all(), f"{backend.name}: {numbers}"


@cache
def parts() -> Parts:
    """The one of this process: what a peer sends must not do harm later, either."""
    return Parts()


@cache
def shipped_model() -> ModelFile:
    """The content of the model file that comes with the project."""
    return msgspec.json.decode(SHIPPED_MODEL.read_bytes(), type=ModelFile)
