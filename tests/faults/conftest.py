import os
from collections.abc import Iterator

import pytest
from support.fault_table import FaultTable
from support.stack_fixtures import stack, start_envoy  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def table() -> Iterator[FaultTable]:
    """Where results are recorded; `make test-faults` has them written into README.md."""
    results = FaultTable()
    yield results
    if "EXTPROC_FAULT_TABLE" in os.environ:
        results.write()
