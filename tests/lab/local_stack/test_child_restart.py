import os
from pathlib import Path

from extproc.lab.local_stack.child_process import ChildProcess
from extproc.lab.local_stack.child_restart import HEALTHY_AFTER_S, LONGEST_PAUSE_S, ChildRestart


def started(tmp_path: Path, *command: str) -> ChildProcess:
    child = ChildProcess("child", command, tmp_path / "log")
    child.start()
    return child


def wait_for_end(child: ChildProcess) -> None:
    assert child.pid is not None
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


def pause_s(restart: ChildRestart, child: ChildProcess, now_s: float) -> float:
    """The pause after an end at `now_s`; the child has then been started again and has ended again."""
    wait_for_end(child)
    before = child.pid
    news = restart.tend(now_s)
    assert news is not None
    pause = float(news.split()[-2])
    assert restart.tend(now_s + pause * 0.99) is None
    assert child.pid == before
    assert restart.tend(now_s + pause) is None
    assert child.pid != before
    return pause


def test_running_child_is_left_alone(tmp_path: Path) -> None:
    child = started(tmp_path, "sleep", "60")
    try:
        restart, pid = ChildRestart(child, 0.0), child.pid
        assert [restart.tend(now_s) for now_s in (0.0, 1.0, 1000.0)] == [None] * 3
        assert child.pid == pid
    finally:
        child.stop(1.0)


def test_end_is_told_once_in_words(tmp_path: Path) -> None:
    child = started(tmp_path, "false")
    wait_for_end(child)
    restart = ChildRestart(child, 0.0)
    assert restart.tend(1.0) == "ended with status 1, and is restarted in 0.5 s"
    assert restart.tend(1.1) is None


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
