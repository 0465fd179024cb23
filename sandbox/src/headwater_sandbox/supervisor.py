"""The control plane's process: finding its binary, starting it, following its state, ending it."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from headwater_sandbox.config import SandboxConfig, nodes_argument
from headwater_sandbox.errors import SandboxError

START_TIMEOUT_S: Final = 150.0
STOP_TIMEOUT_S: Final = 20.0
# The order in which the phases of state.json follow each other.
PHASES: Final = ("starting", "serving", "ready")
_POLL_S: Final = 0.02
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class State:
    """state.json of a control plane, as it was last written."""

    phase: str
    server: str = ""
    kubeconfig: str = ""
    forwards: tuple[str, ...] = ()
    processes: dict[str, int] = field(default_factory=dict)
    error: str = ""


def parse_state(data: dict[str, Any]) -> State:
    return State(
        phase=data["phase"],
        server=data.get("server", ""),
        kubeconfig=data.get("kubeconfig", ""),
        forwards=tuple(data.get("forwards") or ()),
        processes=data.get("processes") or {},
        error=data.get("error", ""),
    )


def read_state(directory: Path) -> State | None:
    try:
        return parse_state(json.loads((directory / "state.json").read_text()))
    except (OSError, ValueError, KeyError):
        return None


def project_root() -> Path | None:
    """The checkout that this package was installed from, if any."""
    for parent in Path(__file__).resolve().parents:
        if (parent / "sandbox" / "build.sh").is_file():
            return parent
    return None


def require_root() -> Path:
    root = project_root()
    if root is None:
        raise SandboxError(
            "charts and control plane are not beside this package: install it from a checkout (make setup)"
        )
    return root


def build_binary() -> Path:
    """The control plane's binary, built first where it is missing or old."""
    if given := os.environ.get("HEADWATER_KUBE_SANDBOX"):
        return Path(given)
    script = require_root() / "sandbox" / "build.sh"
    done = subprocess.run([str(script)], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SandboxError(f"{script} failed: see above")
    return Path(done.stdout.strip())


def spawn(
    binary: Path, directory: Path, config: SandboxConfig, *, die_with: int | None, forwards: bool
) -> subprocess.Popen[bytes]:
    """Starts the control plane in a session of its own. `die_with`: it ends with that process."""
    (directory / "logs").mkdir(parents=True)
    arguments = [
        str(binary),
        "up",
        f"--data-dir={directory}",
        f"--nodes={nodes_argument(config)}",
        f"--forward-count={config.gateways if forwards else 0}",
        f"--forward-port={config.port}",
        f"--path={sys.prefix}/bin:{_SYSTEM_PATH}",
        f"--writable={':'.join(_writable())}",
    ]
    if die_with is not None:
        arguments.append(f"--die-with={die_with}")
    with (directory / "logs" / "up.log").open("wb") as log:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    identity = {"pid": process.pid, "started": _start_ticks(process.pid)}
    (directory / "supervisor.json").write_text(json.dumps(identity))
    return process


def _writable() -> list[str]:
    """Where containers may write: Python keeps its compiled modules beside the sources."""
    root = project_root()
    return (
        [sys.prefix, str(root)]
        if root and not Path(sys.prefix).is_relative_to(root)
        else [str(root or sys.prefix)]
    )


def wait_phase(process: subprocess.Popen[bytes], directory: Path, phase: str, deadline: float) -> State:
    """Waits until the control plane is in that phase. `deadline`: of time.monotonic. Raises SandboxError."""
    wanted = PHASES.index(phase)
    while True:
        state = read_state(directory)
        if state and state.phase in PHASES and PHASES.index(state.phase) >= wanted:
            return state
        if process.poll() is not None:
            raise SandboxError(why_ended(directory))
        if time.monotonic() > deadline:
            raise SandboxError(f"the control plane did not get {phase} in time; see {directory}/logs")
        time.sleep(_POLL_S)


def why_ended(directory: Path) -> str:
    """The control plane's own words."""
    state = read_state(directory)
    if state and state.error:
        return state.error
    try:
        lines = (directory / "logs" / "up.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].removeprefix("kube-sandbox: ") if lines else "the control plane ended without a word"


def supervisor_pid(directory: Path) -> int | None:
    """The control plane's process id while it runs."""
    try:
        identity = json.loads((directory / "supervisor.json").read_text())
    except (OSError, ValueError):
        return None
    pid = int(identity["pid"])
    return pid if _start_ticks(pid) == identity["started"] else None


def _start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: tells it from a later one of the same number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def stop(directory: Path) -> None:
    """Ends the control plane with all its processes and waits for that."""
    state = read_state(directory)
    if pid := supervisor_pid(directory):
        _end(pid, STOP_TIMEOUT_S)
    for pid in (state.processes if state else {}).values():
        # Only left over where the supervisor was killed; they have got SIGTERM from the kernel.
        if _belongs(pid, directory):
            _end(pid, 5.0)


def _belongs(pid: int, directory: Path) -> bool:
    try:
        return os.fsencode(directory) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _end(pid: int, timeout_s: float) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 5.0)):
            signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], wait_s)[0]:
                return
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def keep_alive(process: subprocess.Popen[bytes], stopped: Callable[[], bool]) -> bool:
    """Waits until the control plane ends (True) or `stopped` says so (False)."""
    while not stopped():
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
        return True
    return False
