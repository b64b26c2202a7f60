import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from support.clean_sample import SAMPLE
from support.sample_file import write_samples

from extproc.adapters.files.sample_reading import read_samples
from extproc.fleet.wait_terms import ExpectedWait
from extproc.learning.dataset import TRAINING_COLUMNS, clean_observations
from extproc.learning.fit import fit
from extproc.learning.model_file import dump
from extproc.outcomes.facts import Sample

Write = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "samples.db"


@pytest.fixture
def write(store: Path) -> Write:
    """Appends samples as a sidecar does."""

    def append(*samples: Sample) -> None:
        write_samples(store, *samples)

    return append


@pytest.fixture
def execute(store: Path) -> Callable[[str], None]:
    """Runs raw SQL on the store, as nobody should."""

    def run(statement: str) -> None:
        with closing(sqlite3.connect(store)) as connection, connection:
            connection.execute(statement)

    return run


def busy_fleet(
    count: int,
    *,
    start_s: float = 1_700_000_000.0,
    slowness: tuple[float, ...] = (1.0, 1.6),
    seed: int = 1,
    version: str | None = None,
    predicted_slowness: tuple[float, ...] = (1.0, 1.6),
) -> Iterator[Sample]:
    """Requests in the medium zone of backends that are `slowness` times slower than 0.5 s + 50 ms a request.

    The estimate knows how slow they are, and nothing of the half second or the input. With a `version`, the
    model had predicted what backends of `predicted_slowness` would have taken.
    """
    rng = np.random.default_rng(seed)
    for n in range(count):
        backend = int(rng.integers(len(slowness)))
        load = float(round(50 + 20 * np.sin(n / 40) + rng.normal(0, 4)))
        tokens = float(round(rng.uniform(50, 1500)))
        ttft_s = 0.5 + 0.05 * load + 2e-4 * tokens
        yield replace(
            SAMPLE,
            at_s=start_s + n * 0.1,
            backend=f"vllm-{backend}",
            num_running=min(load, 32.0),
            load=load,
            input_tokens=tokens,
            estimate=ExpectedWait(turns_s=0.05 * load * slowness[backend]),
            ttft_s=float(ttft_s * slowness[backend] * np.exp(rng.normal(0, 0.05))),
            model_version=version,
            predicted_ttft_s=None if version is None else ttft_s * predicted_slowness[backend],
        )


@pytest.fixture(scope="session")
def fleet() -> Callable[..., Iterator[Sample]]:
    return busy_fleet


@pytest.fixture(scope="session")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model made from the busy fleet."""
    path = tmp_path_factory.mktemp("model") / "samples.db"
    write_samples(path, *busy_fleet(600))
    observations = clean_observations(read_samples(path, TRAINING_COLUMNS))[0]
    return dump(fit(observations, seed=1, trained_at_s=1.7e9).model_file)
