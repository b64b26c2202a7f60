"""Run the linters and tests with the newest versions that pyproject.toml allows: `make test-newest`.

An environment of its own gets the versions that `make lock ARGS=--upgrade` would lock today, and a copy of
the source tree, where the newest protoc makes the stubs of `protos/`: `make test` may run at the same time.
Where the lock file has all of these versions, nothing is run. The last lines say which packages are newer,
and what failed with them. This module imports only the standard library: nothing is installed before it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.lock_file import LOCK, ROOT, Versions, versions, write_lock

VENV = ROOT / ".venv"
NEWEST = VENV / "newest"
TREE = NEWEST / "tree"
NOT_COPIED = shutil.ignore_patterns(VENV.name, ".git", "*_pb2.py*", "__pycache__", ".*_cache", ".hypothesis")
PYTHON = NEWEST / "venv" / "bin" / "python"
TESTS = ("tests", "--ignore=tests/containers", "--ignore=tests/test_lock_file.py")
"""All but those of the lock file, and of the image that is built from it."""


def checks(tests: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the commands of `make lint`, and pytest."""
    for command in ("ruff check", "ruff format --check", "mypy", "lint-imports --no-logo"):
        yield tuple(command.split())
    yield ("pytest", "-o", f"cache_dir={NEWEST / 'pytest_cache'}", *(tests or TESTS))


def differences(locked: Versions, newest: Versions) -> list[str]:
    """Return a line for each name whose versions differ from those of the lock."""

    def shown(found: Versions, name: str) -> str:
        return " and ".join(sorted(found.get(name, {"absent"})))

    names = sorted(locked.keys() | newest.keys())
    return [
        f"{name} {shown(newest, name)} (locked: {shown(locked, name)})"
        for name in names
        if locked.get(name) != newest.get(name)
    ]


def failures(command: Sequence[str]) -> list[str]:
    """Run a command, show what it says, and return what failed in it: itself, and tests by name."""
    environment = os.environ | {
        "PATH": f"{PYTHON.parent}:{os.environ['PATH']}",
        "MYPY_CACHE_DIR": str(NEWEST / "mypy_cache"),
        "RUFF_CACHE_DIR": str(NEWEST / "ruff_cache"),
    }
    named = []
    with subprocess.Popen(
        command, cwd=TREE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"newest: {line}", end="", flush=True)  # so that it is not taken for that of `make test`
            named += re.findall(r"^(?:FAILED|ERROR) tests/.+", line)
    if not process.returncode:
        return []
    words = Path(command[0]).name, command[1]
    return [" ".join(word for word in words if not word.startswith("-")), *(f"  {test}" for test in named)]


def install(uv: str, lock: Path) -> list[str]:
    """Make the copy and its environment anew, and return what failed."""
    shutil.rmtree(TREE, ignore_errors=True)
    shutil.copytree(ROOT, TREE, ignore=NOT_COPIED, symlinks=True)
    subprocess.run(
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, NEWEST / "venv"], check=True
    )
    pip_install = (uv, "pip", "install", "--quiet", "--python", str(PYTHON))
    return failures((*pip_install, "--require-hashes", "--requirement", str(lock))) or failures(
        (*pip_install, "--no-build-isolation", "--no-deps", "--editable", ".")
    )


def main(uv: str, tests: Sequence[str]) -> int:
    """Return the exit status: 1 where anything failed."""
    NEWEST.mkdir(exist_ok=True)
    newest = NEWEST / "requirements.lock"
    write_lock(newest, uv, ["--upgrade"])
    newer = differences(versions(LOCK.read_text()), versions(newest.read_text()))
    if not newer:
        print(f"{LOCK.name} has the newest of everything: nothing to test.")
        return 0
    failed = install(uv, newest) or [line for command in checks(tests) for line in failures(command)]
    print("", f"Newer than in {LOCK.name}:", *(f"  {line}" for line in newer), sep="\n")
    print("Failed with them:" if failed else "Nothing failed with them.", *failed, sep="\n  ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
