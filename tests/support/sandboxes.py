"""Sandboxes for tests: the command line as a script uses it, and a look at what processes there are."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.kube import KUBECTL, poll

ROOT: Final = Path(__file__).resolve().parents[2]
UP_SECONDS: Final = 90.0


def build() -> Path:
    """The control plane's binary; instant when it is built."""
    done = subprocess.run(
        [str(ROOT / "sandbox" / "build.sh")], stdout=subprocess.PIPE, text=True, check=True, timeout=1800
    )
    return Path(done.stdout.strip())


@dataclass(frozen=True)
class Headwater:
    """`headwater sandbox …` with its state under `state`."""

    state: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "headwater_cli", "sandbox", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_STATE_HOME": str(self.state)}

    def run(self, *arguments: str, timeout: float = UP_SECONDS) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ok(self, *arguments: str) -> dict[str, Any]:
        """A command that must succeed and print JSON."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    def directory(self, name: str) -> Path:
        return self.state / "headwater" / name


def first_json(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The line that a foreground `up --json` prints once it is ready."""
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    printed: dict[str, Any] = json.loads(line)
    return printed


def kubectl(kubeconfig: Path, *arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        [str(KUBECTL), "--kubeconfig", str(kubeconfig), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pod_manifest(name: str, script: str, **spec: Any) -> str:
    """A Pod of one container that runs a shell script, ends quickly and is not restarted."""
    container = {"name": "main", "image": "ignored", "command": ["sh", "-c", script]}
    container |= spec.pop("container", {})
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": spec.pop("labels", {})},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
                **spec,
            },
        }
    )


# Far more than the seconds that it takes.
ENDS_WITHIN_S = 20.0


def phase(kubeconfig: Path, pod: str) -> str:
    return kubectl(kubeconfig, "get", "pod", pod, "-o", "jsonpath={.status.phase}")


def processes(text: str) -> list[int]:
    """Ids of the live processes whose command line contains the text, this one's own family excluded."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile
    return found


def wait_gone(text: str, seconds: float) -> None:
    poll(f"no process with {text!r} is left", seconds, lambda: not processes(text))


def end(process: "subprocess.Popen[str]", number: signal.Signals, seconds: float) -> int:
    """Sends a signal to exactly that process and waits for its end."""
    process.send_signal(number)
    process.communicate(timeout=seconds)
    return process.returncode
