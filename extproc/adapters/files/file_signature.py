"""Whether a file has changed: by its status, so that looking is cheap and never waits for content."""

import stat
from pathlib import Path

FileSignature = tuple[int, int, int]


def file_signature(path: Path) -> FileSignature | None:
    """Return what differs after every change of the file, of its permissions too; None for no regular file.

    The time is that of the last change of the inode (ctime), which no writer can set back.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_ino, status.st_size, status.st_ctime_ns
