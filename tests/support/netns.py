"""Network namespaces of a test's own: made of a process that dies with us, so that nothing is left behind."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.kube import poll

_CLONE_NEWNET: Final = 0x40000000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def need_root() -> None:
    """Fails with a sentence where namespaces cannot be made."""
    if os.geteuid() != 0:
        pytest.fail("network namespaces need root: run the tests as root", pytrace=False)


class Namespace:
    """One namespace, with its loopback up."""

    def __init__(self, holder: "subprocess.Popen[bytes]") -> None:
        self._holder = holder
        self.path = Path(f"/proc/{holder.pid}/ns/net")

    @property
    def launcher(self) -> tuple[str, ...]:
        """Put before a command, it runs there."""
        return ("nsenter", f"--net={self.path}", "--")

    def run(self, *command: str, stdin: str | None = None) -> str:
        """A command's output. AssertionError with its errors where it fails."""
        done = subprocess.run(
            [*self.launcher, *command], input=stdin, capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{done.stdout}"
        return done.stdout

    def add_addresses(self, device: str, *addresses: str) -> None:
        for address in addresses:
            self.run("ip", "address", "add", address, "dev", device)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread's new sockets and processes belong there during the block."""
        with open("/proc/thread-self/ns/net", "rb") as home, self.path.open("rb") as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())


def _setns(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace for the block."""
    need_root()
    holder = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"],
        stdin=subprocess.DEVNULL,
    )
    try:
        own = os.readlink("/proc/self/ns/net")
        path = f"/proc/{holder.pid}/ns/net"
        poll("the namespace is made", 10, lambda: os.readlink(path) != own)
        made = Namespace(holder)
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        holder.kill()
        holder.wait(10)


def connect(left: Namespace, right: Namespace, left_address: str, right_address: str) -> None:
    """A cable between both: the device `wire` at each end, with its address."""
    left.run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire2")
    left.run("ip", "link", "set", "wire2", "netns", str(right.path).split("/")[2])
    right.run("ip", "link", "set", "wire2", "name", "wire")
    for end, address in ((left, left_address), (right, right_address)):
        end.add_addresses("wire", address)
        end.run("ip", "link", "set", "wire", "up")
