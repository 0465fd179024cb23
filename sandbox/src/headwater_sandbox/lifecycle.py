"""A sandbox from `up` to `down`: its directory, what it tells scripts, and the order of things."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from headwater_sandbox import install, supervisor
from headwater_sandbox.config import SandboxConfig, Secrets
from headwater_sandbox.errors import SandboxError
from headwater_sandbox.kube import Api

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Info:
    """What `up --json` prints: the contract with scripts."""

    name: str
    data_dir: Path
    kubeconfig: Path
    gateways: tuple[str, ...]
    regions: tuple[str, ...]
    api_key: str
    api_secret: str = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kubeconfig": str(self.kubeconfig),
            "gateways": list(self.gateways),
            "apiKey": self.api_key,
            "apiSecret": self.api_secret,
            "regions": list(self.regions),
            "dataDir": str(self.data_dir),
        }


def parse_info(data: dict[str, Any]) -> Info:
    return Info(
        name=data["name"],
        data_dir=Path(data["dataDir"]),
        kubeconfig=Path(data["kubeconfig"]),
        gateways=tuple(data["gateways"]),
        regions=tuple(data["regions"]),
        api_key=data["apiKey"],
        api_secret=data["apiSecret"],
    )


def state_root() -> Path:
    """Where all sandboxes of this user live: $XDG_STATE_HOME/headwater."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base).absolute() / "headwater"


def directory_of(name: str) -> Path:
    return state_root() / name


@contextmanager
def exclusively(name: str) -> Iterator[None]:
    """One `up` or `down` of a name at a time. Raises SandboxError."""
    root = state_root()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = (root / f".{name}.lock").open("w")
    except OSError as error:
        raise SandboxError(
            f"cannot write to {root} ({error.strerror}): set XDG_STATE_HOME to a place of yours"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SandboxError(
                f"sandbox {name!r} is being started or ended by another command: wait for it"
            ) from error
        yield


def find(name: str) -> Info:
    """The running sandbox of that name. Raises SandboxError."""
    directory = directory_of(name)
    if supervisor.supervisor_pid(directory) is None:
        state = supervisor.read_state(directory)
        ended = f" (it ended: {state.error})" if state and state.error else ""
        raise SandboxError(
            f"no sandbox {name!r} runs{ended}: start one with `headwater sandbox up --detach{_named(name)}`"
        )
    try:
        return parse_info(json.loads((directory / "sandbox.json").read_text()))
    except (OSError, ValueError, KeyError) as error:
        raise SandboxError(f"sandbox {name!r} is still starting: try again in a moment") from error


def _named(name: str) -> str:
    return "" if name == "default" else f" --name {name}"


@dataclass(slots=True)
class Running:
    """A sandbox that this process has started."""

    info: Info
    process: Popen[bytes]


def up(
    config: SandboxConfig, *, bare: bool, die_with: int | None, timeout_s: float, report: Report
) -> Running:
    """Starts a sandbox and waits until it is ready; leaves nothing running where that fails.

    `bare`: Kubernetes alone, without Headwater. `die_with`: process whose end ends the sandbox.
    """
    directory = directory_of(config.name)
    report("control plane: binary")
    binary = supervisor.build_binary()
    with exclusively(config.name):
        if supervisor.supervisor_pid(directory) is not None:
            raise SandboxError(
                f"sandbox {config.name!r} runs already:"
                f" `headwater sandbox down{_named(config.name)}` ends it, --name starts a second one"
            )
        supervisor.stop(directory)  # what a killed supervisor may have left
        supervisor.remove(directory)
        deadline = time.monotonic() + timeout_s
        try:
            process = supervisor.spawn(binary, directory, config, die_with=die_with, forwards=not bare)
            info = _bring_up(config, binary, process, bare=bare, deadline=deadline, report=report)
        except BaseException:
            supervisor.stop(directory)  # logs stay for reading until the next `up`
            raise
    return Running(info, process)


def _bring_up(
    config: SandboxConfig, binary: Path, process: Popen[bytes], *, bare: bool, deadline: float, report: Report
) -> Info:
    directory = directory_of(config.name)
    start_deadline = min(deadline, time.monotonic() + supervisor.START_TIMEOUT_S)
    report("control plane: starting")
    state = supervisor.wait_phase(process, directory, "starting", start_deadline)
    made = _make_secrets()
    info = Info(
        name=config.name,
        data_dir=directory,
        kubeconfig=Path(state.kubeconfig),
        gateways=tuple(f"ws://{address}" for address in state.forwards),
        regions=config.regions,
        api_key=made.api_key,
        api_secret=made.api_secret,
    )
    manifests = "" if bare else _render(config, binary, made, info)
    supervisor.wait_phase(process, directory, "serving", start_deadline)
    if not bare:
        report("charts: applying")
        install.apply(binary, info.kubeconfig, manifests)
    supervisor.wait_phase(process, directory, "ready", start_deadline)
    api = Api(info.kubeconfig)
    try:
        install.wait_usable(api, start_deadline)
        if not bare:
            install.wait_ready(api, config, deadline, lambda text: report(f"pods: {text}"))
    finally:
        api.close()
    _write_private(directory / "sandbox.json", json.dumps(info.to_json()))
    return info


def _render(config: SandboxConfig, binary: Path, made: Secrets, info: Info) -> str:
    charts = supervisor.require_root() / "charts"
    return install.render(binary, charts, config, made, info.gateways[0] if info.gateways else "")


def _make_secrets() -> Secrets:
    return Secrets(
        api_key="API" + secrets.token_hex(6),
        api_secret=secrets.token_urlsafe(33),
        node_token=secrets.token_urlsafe(33),
    )


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)


def down(name: str) -> bool:
    """Ends the sandbox and removes its directory. False: there was none."""
    with exclusively(name):
        directory = directory_of(name)
        if not directory.exists():
            return False
        supervisor.stop(directory)
        supervisor.remove(directory)
    return True
