"""Who goes first where a whole cluster and its clients share one machine's processors."""

import contextlib
from pathlib import Path

import psutil

BOT_PROCESS = "headwater_sandbox.demo.botproc"


def bot_processes() -> list[int]:
    """The bot processes that we started, the oldest first."""
    ours = [child for child in psutil.Process().children() if BOT_PROCESS in child.cmdline()]
    return [child.pid for child in sorted(ours, key=lambda child: child.create_time())]


def set_share(pid: int, nice: int) -> None:
    """The niceness of that process's whole session (sched(7), "The autogroup feature").

    To go before others takes privileges, and not each kernel shares by session: then nothing changes.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(f"{nice}\n")
