"""The limit of open files is raised as far as the system allows, and shared out; in a process of its own."""

import subprocess
import sys

import pytest

SHOW = """
import resource
from extproc.adapters.descriptors import raise_descriptor_limit, share_of_descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (%d, %d))
raise_descriptor_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], share_of_descriptors(0.25, 128))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "shown"), [(200, 1000, "1000 128"), (200, 200, "200 50"), (900, 900, "900 128")]
)
def test_the_soft_limit_becomes_the_hard_one_and_a_port_has_its_share(
    soft: int, hard: int, shown: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SHOW % (soft, hard)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == shown
