import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extproc.errors import StackError
from extproc.lab.local_stack.child_process import (
    EXTPROC,
    HEALTHY_AFTER_S,
    LONGEST_PAUSE_S,
    ChildProcess,
    ChildRestart,
)

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


def started(tmp_path: Path, *command: str) -> ChildProcess:
    child = ChildProcess("child", command, tmp_path / "log")
    child.start()
    return child


def pause_s(restart: ChildRestart, child: ChildProcess, now_s: float) -> float:
    """The pause after an end at `now_s`; the child has then been started again and has ended again."""
    wait_for_end(child)
    before = child.pid
    news = restart.advance(now_s)
    assert news is not None
    pause = float(news.split()[-2])
    assert restart.advance(now_s + pause * 0.99) is None
    assert child.pid == before
    assert restart.advance(now_s + pause) is None
    assert child.pid != before
    return pause


def test_running_child_is_left_alone(tmp_path: Path) -> None:
    child = started(tmp_path, "sleep", "60")
    try:
        restart, pid = ChildRestart(child, 0.0), child.pid
        assert [restart.advance(now_s) for now_s in (0.0, 1.0, 1000.0)] == [None] * 3
        assert child.pid == pid
    finally:
        child.stop(1.0)


def test_the_end_is_reported_once_in_words(tmp_path: Path) -> None:
    child = started(tmp_path, "false")
    wait_for_end(child)
    restart = ChildRestart(child, 0.0)
    assert restart.advance(1.0) == "ended with status 1, and is restarted in 0.5 s"
    assert restart.advance(1.1) is None


def test_pauses_double_up_to_the_longest(tmp_path: Path) -> None:
    child = started(tmp_path, "false")
    restart = ChildRestart(child, 0.0)
    pauses_s = [pause_s(restart, child, 1.0 + 20.0 * n) for n in range(7)]
    assert pauses_s == [0.5, 1.0, 2.0, 4.0, 8.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    child.stop(1.0)


def test_long_run_forgets_earlier_pauses(tmp_path: Path) -> None:
    child = started(tmp_path, "false")
    restart = ChildRestart(child, 0.0)
    assert [pause_s(restart, child, now_s) for now_s in (1.0, 2.0)] == [0.5, 1.0]
    assert pause_s(restart, child, 3.0 + HEALTHY_AFTER_S) == 0.5
    child.stop(1.0)


def test_the_own_command_runs_the_installed_package_whatever_the_directory_holds(tmp_path: Path) -> None:
    package = tmp_path / "extproc"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("print('another package')")
    done = subprocess.run([*EXTPROC, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("extproc ")
