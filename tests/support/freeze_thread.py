"""Stops one thread of a child process, as no signal can: a media loop that stands, control that answers."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000


def _ptrace(request: int, tid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(tid), None, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def threads_of(pid: int, prefix: str) -> list[int]:
    """The threads whose name begins so. LookupError where there is none."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = [int(task.name) for task in tasks if (task / "comm").read_text().startswith(prefix)]
    if not found:
        raise LookupError(f"process {pid} has no thread {prefix!r}")
    return found


@contextmanager
def frozen(tid: int) -> Iterator[None]:
    """The thread does not run within the block. Needs the right to trace it (a child of ours, or root)."""
    _ptrace(_SEIZE, tid)
    try:
        _ptrace(_INTERRUPT, tid)
        os.waitpid(tid, _WALL)
        yield
    finally:
        _ptrace(_DETACH, tid)
