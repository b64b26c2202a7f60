import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extproc.errors import StackError
from extproc.lab.local_stack.child_process import ChildProcess

Start = Callable[[str], ChildProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts Python with a program."""
    started: list[ChildProcess] = []

    def start_program(program: str) -> ChildProcess:
        child = ChildProcess("child", [sys.executable, "-c", program], tmp_path / "child.log")
        started.append(child)
        child.start()
        return child

    yield start_program
    for child in started:
        child.stop(0.0)


def wait_for_end(child: ChildProcess) -> None:
    assert child.pid is not None
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


def test_ending_says_status_or_signal(start: Start) -> None:
    child = start("import sys; sys.exit(3)")
    wait_for_end(child)
    assert child.ending() == "ended with status 3"
    child = start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    wait_for_end(child)
    assert child.ending() == "was killed by SIGKILL"


def test_running_child_has_no_ending_until_it_is_stopped(start: Start) -> None:
    child = start("import time; time.sleep(60)")
    assert child.ending() is None
    child.stop(30.0)
    assert child.ending() == "was killed by SIGTERM"
    child.stop(5.0)


def test_child_that_was_never_started_is_stopped_all_the_same(tmp_path: Path) -> None:
    child = ChildProcess("child", ["true"], tmp_path / "log")
    child.stop(0.0)
    assert (child.ending(), child.pid) == (None, None)


def test_child_that_ignores_sigterm_is_killed(start: Start, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    child = start(
        f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"open({str(ready)!r}, 'w').close(); time.sleep(60)"
    )
    ready.read_bytes()
    child.stop(0.1)
    assert child.ending() == "was killed by SIGKILL"


def test_log_tail_is_the_end_of_the_output_of_all_runs(start: Start, tmp_path: Path) -> None:
    child = start("import os; os.write(1, b'caf\\xc3\\xa9 \\xff\\n' * 3000); os.write(2, b'last\\n')")
    wait_for_end(child)
    tail = child.log_tail().splitlines()
    assert len(tail) == 15
    assert tail[-2:] == ["  café \ufffd", "  last"]
    assert child.ending() == "ended with status 0"
    child.start()
    wait_for_end(child)
    assert (tmp_path / "child.log").stat().st_size == 2 * (3000 * 8 + 5)


def test_silent_child_has_an_empty_log(start: Start) -> None:
    child = start("pass")
    assert child.log_tail() == "  (its log is empty)"


def test_missing_program_is_a_stack_error(tmp_path: Path) -> None:
    child = ChildProcess("child", [str(tmp_path / "absent")], tmp_path / "log")
    with pytest.raises(StackError, match=r"child: cannot run .*absent"):
        child.start()


def test_child_has_a_session_of_its_own(start: Start) -> None:
    child = start("import time; time.sleep(60)")
    assert child.pid is not None
    assert os.getsid(child.pid) == child.pid


def test_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    fifo = tmp_path / "open-while-the-child-lives"
    os.mkfifo(fifo)
    program = f"""
import os, signal
from pathlib import Path
from extproc.lab.local_stack.child_process import ChildProcess
child = ["{sys.executable}", "-c", "import time; file = open({str(fifo)!r}, 'w'); time.sleep(60)"]
ChildProcess("child", child, Path({str(tmp_path / "log")!r})).start()
open({str(fifo)!r}).close()  # the child runs
os.kill(os.getpid(), signal.SIGKILL)
"""
    # Both ends of the pipe are this test's: reading ends when the last writer, the child, is gone.
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        parent = subprocess.run([sys.executable, "-c", program], check=False, timeout=30)
        assert parent.returncode == -9
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
