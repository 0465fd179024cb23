"""A bare Kubernetes API server for tests: etcd and kube-apiserver of the sandbox's binary, nothing else.

`api_server` is started once for a test session, on free ports, in a short temporary directory, and is
stopped by its process id. `namespace` gives each test an empty namespace of its own.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
BINARY: Final = ROOT / "sandbox" / ".build" / "kube-sandbox"
KUBECTL: Final = Path(sys.executable).parent / "kubectl"
CRDS: Final = (ROOT / "crds" / "sfuclusters.yaml", ROOT / "crds" / "meetings.yaml")
START_SECONDS: Final = 50
STOP_SECONDS: Final = 30
T = TypeVar("T")


def poll(what: str, seconds: float, attempt: Callable[[], T | None]) -> T:
    """The first result of `attempt` that is not None, False or empty. Fails at the deadline with `what`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = attempt()
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass(frozen=True)
class ApiServer:
    """A running API server; its clients hold the rights of a cluster administrator."""

    kubeconfig: Path

    def run(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl, whatever its exit code; 30 s at most."""
        return subprocess.run(
            [str(KUBECTL), "--kubeconfig", str(self.kubeconfig), *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """What kubectl prints. Fails with its error when it refuses."""
        done = self.run(*args, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr.strip()}"
        return done.stdout

    def get(self, *args: str) -> dict[str, Any]:
        """One object (or a list) as a dict."""
        loaded: dict[str, Any] = json.loads(self.kubectl("get", *args, "-o", "json"))
        return loaded

    def install_crds(self) -> None:
        """Applies Headwater's CRDs and waits until the server serves both kinds."""
        for crd in CRDS:
            self.kubectl("apply", "--server-side", "-f", str(crd))
        for name in ("sfuclusters", "meetings"):
            self.kubectl("wait", "--for=condition=Established", f"crd/{name}.headwater.dev", "--timeout=20s")
            poll(f"{name} are served", 20, partial(self._serves, name))

    def _serves(self, plural: str) -> bool:
        return self.run("get", plural).returncode == 0


@contextmanager
def bare_api_server(binary: Path = BINARY) -> Iterator[ApiServer]:
    """Starts etcd and the API server, yields when /readyz is well, stops both. Fails within START_SECONDS."""
    if not binary.is_file():
        pytest.fail(f"{binary} is missing: run `make setup`", pytrace=False)
    home = Path(tempfile.mkdtemp(prefix="hwk-", dir="/tmp"))  # short: unix socket paths lie below it
    log, data = home / "up.log", home / "d"
    command = [str(binary), "up", "--data-dir", str(data), "--components=", "--die-with", str(os.getpid())]
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        try:
            poll("the API server is ready", START_SECONDS, partial(_ready, process, data / "state.json", log))
            yield ApiServer(data / "admin.kubeconfig")
        finally:
            _stop(process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """The session's API server, with Headwater's CRDs."""
    with bare_api_server() as server:
        server.install_crds()
        yield server


@pytest.fixture
def namespace(api_server: ApiServer) -> Iterator[str]:
    """A namespace for one try of one test. No controller empties it: the server ends with the session."""
    name = f"t-{secrets.token_hex(6)}"
    api_server.kubectl("create", "namespace", name)
    yield name
    api_server.kubectl("delete", "namespace", name, "--wait=false")


def _ready(process: subprocess.Popen[bytes], state: Path, log: Path) -> bool:
    assert process.poll() is None, f"it ended with {process.returncode}: {log.read_text()[-2000:]}"
    with suppress(FileNotFoundError, json.JSONDecodeError):  # not there yet, or half written
        found = json.loads(state.read_text())
        assert found["phase"] != "failed", f"it failed: {found.get('error')}"
        return bool(found["phase"] == "ready")
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_SECONDS)
