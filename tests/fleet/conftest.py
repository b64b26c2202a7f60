"""Two backends of which nothing is known."""

import pytest
from support.build import a_backend

from extproc.fleet.backend import Backend


@pytest.fixture
def one() -> Backend:
    return a_backend(number=1)


@pytest.fixture
def two() -> Backend:
    return a_backend(number=2)
