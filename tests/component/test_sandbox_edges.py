"""The control plane on its edges: no root, no user namespaces, a dead parent, a taken port."""

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kube import poll
from support.sandboxes import (
    ENDS_WITHIN_S,
    Headwater,
    build,
    end,
    first_json,
    kubectl,
    pod_manifest,
    processes,
    wait_gone,
)

pytestmark = pytest.mark.timeout(150)
NOBODY = 65534

SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["HOSTNAME"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.HTTPServer((os.environ["IP"], 7880), Handler).serve_forever()
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that everybody may enter, with the programs in it."""
    home = Path(tempfile.mkdtemp(prefix="hwn-"))
    home.chmod(0o755)
    for name in ("kube-sandbox", "container-init"):
        shutil.copy(build().parent / name, home / name)
    yield home
    shutil.rmtree(home, ignore_errors=True)


def without_root(command: list[str]) -> list[str]:
    """The command as an ordinary user, whoever runs the tests."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]


def up(home: Path, *options: str) -> "subprocess.Popen[str]":
    data = home / "data"
    data.mkdir()
    if os.geteuid() == 0:
        os.chown(data, NOBODY, NOBODY)
    command = [str(home / "kube-sandbox"), "up", f"--data-dir={data}", "--nodes=eu-1=eu/eu-a", *options]
    command += [f"--die-with={os.getpid()}", "--path=/usr/local/bin:/usr/bin:/bin"]
    return subprocess.Popen(
        without_root(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home
    )


def wait_ready(process: "subprocess.Popen[str]", home: Path) -> dict[str, Any]:
    def ready() -> dict[str, Any] | None:
        assert process.poll() is None, process.communicate()[1]
        path = home / "data" / "state.json"
        state = json.loads(path.read_text()) if path.exists() else {}
        return state if state.get("phase") == "ready" else None

    return poll("the sandbox is ready", 90, ready)


def ask(address: str) -> str:
    """The name of the Pod that answers, or nothing."""
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def gateway(name: str) -> str:
    environment = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    return pod_manifest(
        name,
        "",
        labels={"app.kubernetes.io/component": "gateway"},
        container={
            "command": ["/usr/bin/env", "python3", "-c", SERVER],
            "env": environment,
            "readinessProbe": {"tcpSocket": {"port": 7880}, "periodSeconds": 1},
        },
    )


def test_without_root_pods_run_and_their_port_follows_a_replacement(directory: Path) -> None:
    process = up(directory, "--forward-count=1")
    try:
        state = wait_ready(process, directory)
        kubeconfig = directory / "data" / "admin.kubeconfig"
        assert processes(str(directory / "data"))
        kubectl(kubeconfig, "create", "namespace", "headwater")
        kubectl(kubeconfig, "create", "serviceaccount", "-n", "headwater", "late")
        for name in ("first", "second"):
            apply = ("apply", "-n", "headwater", "-f", "-")

            def applied(name: str = name, apply: tuple[str, ...] = apply) -> bool:
                try:
                    kubectl(kubeconfig, *apply, stdin=gateway(name))
                except AssertionError as error:
                    assert "serviceaccount" in str(error)  # the default one is being made
                    return False
                return True

            poll("the Pod is accepted", 15, applied)
            poll("the port leads to it", 20, lambda name=name: ask(state["forwards"][0]) == name)  # type: ignore[misc]
            kubectl(kubeconfig, "delete", "pod", "-n", "headwater", name, "--timeout=15s")
        owner = (directory / "data" / "etcd").stat().st_uid
        assert owner == (NOBODY if os.geteuid() == 0 else os.geteuid())
    finally:
        if process.poll() is None:
            assert end(process, signal.SIGTERM, ENDS_WITHIN_S) == 0
    assert not processes(str(directory / "data"))


def test_where_the_kernel_refuses_namespaces_one_line_says_what_to_do(directory: Path) -> None:
    """No root, and a limit of no further user namespaces: as on a hardened machine."""
    script = (
        "echo 0 >/proc/sys/user/max_user_namespaces;"
        f" exec setpriv --bounding-set=-all --inh-caps=-all {directory}/kube-sandbox up"
        f" --data-dir={directory}/data --nodes=eu-1=eu/eu-a"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "sysctl -w user.max_user_namespaces" in done.stderr
    assert "Run as root" in done.stderr


def test_a_kernel_that_forbids_mounting_is_found_before_anything_starts(directory: Path) -> None:
    (directory / "container-init").write_text(
        "#!/bin/sh\necho container-init: tmpfs on /: EPERM >&2; exit 127\n"
    )
    process = up(directory)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1, errors
    assert "tmpfs on /: EPERM" in errors and "Run as root" in errors
    assert json.loads((directory / "data" / "state.json").read_text())["phase"] == "failed"


def test_without_root_a_killed_supervisor_leaves_nothing(directory: Path) -> None:
    process = up(directory, "--components=nodes")
    try:
        wait_ready(process, directory)
    finally:
        end(process, signal.SIGKILL, 5)
    wait_gone(str(directory / "data"), 20)


@pytest.fixture
def headwater() -> Iterator[Headwater]:
    build()
    state = Path(tempfile.mkdtemp(prefix="hws-"))
    yield Headwater(state)
    shutil.rmtree(state, ignore_errors=True)


def test_a_foreground_sandbox_ends_when_its_command_is_killed(headwater: Headwater) -> None:
    number = f"3{secrets.randbelow(10**8):08}"
    process = headwater.start(
        "up", "--json", "--bare", "--name", "orphan", "--regions", "eu", "--nodes-per-region", "1"
    )
    try:
        kubeconfig = Path(first_json(process)["kubeconfig"])
        kubectl(kubeconfig, "apply", "-f", "-", stdin=pod_manifest("held", f"exec sleep {number}"))
        poll("it runs", 15, lambda: processes(f"sleep\0{number}"))
    finally:
        end(process, signal.SIGKILL, 5)
    wait_gone(str(headwater.directory("orphan")), 20)
    assert not processes(f"sleep\0{number}")


def test_a_taken_port_is_one_line_and_leaves_nothing_running(headwater: Headwater) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        began = time.monotonic()
        done = headwater.run("up", "--detach", "--json", "--name", "taken", "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {port}" in done.stderr.splitlines()[-1] and "--port" in done.stderr.splitlines()[-1]
    assert time.monotonic() - began < 30
    assert not processes(str(headwater.directory("taken")))


def test_a_state_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = Headwater(tmp_path / "file").run("up", "--detach", "--bare")
    assert done.returncode == 1
    assert "XDG_STATE_HOME" in done.stderr.splitlines()[-1]


def test_status_of_nothing_says_how_to_start(headwater: Headwater) -> None:
    done = headwater.run("status")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "headwater: no sandbox 'default' runs: start one with `headwater sandbox up --detach`"
    ]
