"""A detached sandbox without Headwater: its contract with scripts, its containers, and how it ends."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.kube import poll
from support.sandboxes import (
    ENDS_WITHIN_S,
    Headwater,
    build,
    end,
    first_json,
    kubectl,
    phase,
    pod_manifest,
    processes,
    wait_gone,
)

pytestmark = pytest.mark.timeout(150)


@dataclass(frozen=True)
class Sandbox:
    headwater: Headwater
    name: str
    kubeconfig: Path
    printed: dict[str, object]
    guardian: "subprocess.Popen[bytes]"

    @property
    def directory(self) -> Path:
        return self.headwater.directory(self.name)


@pytest.fixture(scope="module")
def headwater() -> Iterator[Headwater]:
    build()
    state = Path(tempfile.mkdtemp(prefix="hws-"))
    yield Headwater(state)
    shutil.rmtree(state, ignore_errors=True)


@contextmanager
def running(headwater: Headwater) -> Iterator[Sandbox]:
    # It reads a pipe that only this process holds, so it ends when pytest does, however that ends.
    guardian = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    name = "t" + secrets.token_hex(3)
    try:
        printed = headwater.ok(
            "up", "--detach", "--json", "--bare", "--name", name, "--die-with", str(guardian.pid),
            "--regions", "eu,us", "--nodes-per-region", "1",
        )  # fmt: skip
        yield Sandbox(headwater, name, Path(str(printed["kubeconfig"])), printed, guardian)
    finally:
        headwater.run("down", "--name", name)
        guardian.kill()
        guardian.communicate()


@pytest.fixture(scope="module")
def sandbox(headwater: Headwater) -> Iterator[Sandbox]:
    with running(headwater) as shared:
        yield shared


@pytest.fixture
def own_sandbox(headwater: Headwater) -> Iterator[Sandbox]:
    """For a test that damages it."""
    with running(headwater) as own:
        yield own


def run_pod(kubeconfig: Path, name: str, script: str, **spec: object) -> None:
    """A Pod of that name; what a first try of the test left under it goes first."""
    kubectl(kubeconfig, "replace", "--force", "-f", "-", stdin=pod_manifest(name, script, **spec))


def test_up_prints_what_scripts_rely_on(sandbox: Sandbox) -> None:
    assert set(sandbox.printed) >= {
        "kubeconfig",
        "gateways",
        "apiKey",
        "apiSecret",
        "regions",
        "name",
        "dataDir",
    }
    assert sandbox.printed["regions"] == ["eu", "us"]
    assert len(str(sandbox.printed["apiSecret"])) >= 32
    assert Path(str(sandbox.printed["kubeconfig"])).stat().st_mode & 0o077 == 0


def test_nodes_carry_the_topology_labels(sandbox: Sandbox) -> None:
    nodes = json.loads(kubectl(sandbox.kubeconfig, "get", "nodes", "-o", "json"))["items"]
    labels = {node["metadata"]["name"]: node["metadata"]["labels"] for node in nodes}
    assert {name: each["topology.kubernetes.io/region"] for name, each in labels.items()} == {
        "eu-1": "eu",
        "us-1": "us",
    }
    assert all(each["topology.kubernetes.io/zone"] for each in labels.values())


def test_status_adds_nodes_to_what_up_printed(sandbox: Sandbox) -> None:
    status = sandbox.headwater.ok("status", "--json", "--name", sandbox.name)
    assert status == sandbox.printed | {"nodes": []}


def test_a_container_gets_what_its_pod_says_and_leaves_the_host_alone(sandbox: Sandbox) -> None:
    mark = f"/usr/headwater-test-{secrets.token_hex(4)}"
    script = (
        "echo address=$IP secret=$(cat /etc/given/deep/word);"
        " ls /run/secrets/kubernetes.io/serviceaccount/token;"
        f" (echo x >{mark}) 2>/dev/null || echo refused; echo scratch >/scratch/file && cat /scratch/file"
    )
    kubectl(sandbox.kubeconfig, "delete", "secret", "given", "--ignore-not-found")  # of a first try
    kubectl(sandbox.kubeconfig, "create", "secret", "generic", "given", "--from-literal=word=sesame")
    run_pod(
        sandbox.kubeconfig,
        "one",
        script,
        container={
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "volumeMounts": [
                {"name": "given", "mountPath": "/etc/given/deep"},
                {"name": "scratch", "mountPath": "/scratch"},
            ],
        },
        volumes=[{"name": "given", "secret": {"secretName": "given"}}, {"name": "scratch", "emptyDir": {}}],
        nodeSelector={"topology.kubernetes.io/region": "us"},
        securityContext={"runAsNonRoot": True, "fsGroup": 65532},
    )
    poll("the Pod has ended", 15, lambda: phase(sandbox.kubeconfig, "one") == "Succeeded")
    log = kubectl(sandbox.kubeconfig, "logs", "one").splitlines()
    address = kubectl(sandbox.kubeconfig, "get", "pod", "one", "-o", "jsonpath={.status.podIP}")
    assert address.startswith("127.")
    assert log == [
        f"address={address} secret=sesame",
        "/run/secrets/kubernetes.io/serviceaccount/token",
        "refused",
        "scratch",
    ]
    assert not Path(mark).exists() and not Path("/etc/given").exists() and not Path("/scratch").exists()


def test_a_killed_container_is_reported_at_once_and_leaves_no_process(sandbox: Sandbox) -> None:
    stray, own = f"9{secrets.randbelow(10**8):08}", f"8{secrets.randbelow(10**8):08}"
    run_pod(sandbox.kubeconfig, "killed", f"setsid sleep {stray} & exec sleep {own}")
    poll("both processes run", 15, lambda: processes(f"sleep\0{stray}") and processes(f"sleep\0{own}"))
    poll("the Pod runs", 5, lambda: phase(sandbox.kubeconfig, "killed") == "Running")
    os.kill(processes(f"sleep\0{own}")[0], signal.SIGKILL)
    # The kubelet alone would look once a second; on an idle machine this takes some 20 ms.
    poll("the death is reported", 3, lambda: phase(sandbox.kubeconfig, "killed") == "Failed")
    code = kubectl(
        sandbox.kubeconfig, "get", "pod", "killed",
        "-o", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}",
    )  # fmt: skip
    assert code == "137"
    wait_gone(f"sleep\0{stray}", 3)


def test_a_deleted_pod_ends_within_its_grace_period(sandbox: Sandbox) -> None:
    number = f"7{secrets.randbelow(10**8):08}"
    run_pod(sandbox.kubeconfig, "stubborn", f"trap '' TERM; sleep {number} & wait; wait")
    poll("it runs", 15, lambda: phase(sandbox.kubeconfig, "stubborn") == "Running")
    kubectl(sandbox.kubeconfig, "delete", "pod", "stubborn", "--timeout=15s")
    wait_gone(f"sleep\0{number}", 3)


def test_a_container_without_a_command_is_refused_with_the_reason(sandbox: Sandbox) -> None:
    run_pod(sandbox.kubeconfig, "empty", "", container={"command": [], "args": []})

    def reason() -> str | bool:
        return "set command" in kubectl(
            sandbox.kubeconfig, "get", "pod", "empty", "-o", "jsonpath={.status.containerStatuses[0].state}"
        )

    poll("the reason is in the Pod's status", 15, reason)


def test_a_kubelet_may_not_touch_another_nodes_objects(sandbox: Sandbox) -> None:
    own = sandbox.directory / "node-eu-1.kubeconfig"
    assert kubectl(own, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}") == "system:node:eu-1"
    with pytest.raises(AssertionError, match="only its own Node object"):
        kubectl(own, "label", "node", "us-1", "stolen=yes")


def test_a_name_that_runs_is_not_started_twice(sandbox: Sandbox) -> None:
    done = sandbox.headwater.run("up", "--detach", "--bare", "--name", sandbox.name)
    assert done.returncode == 1
    assert f"headwater sandbox down --name {sandbox.name}" in done.stderr.splitlines()[-1]


def test_a_second_sandbox_runs_beside_it_and_ends_with_ctrl_c(sandbox: Sandbox) -> None:
    headwater, number = sandbox.headwater, f"6{secrets.randbelow(10**8):08}"
    options = ("up", "--json", "--bare", "--name", "second", "--regions", "eu", "--nodes-per-region", "1")
    process = headwater.start(*options)
    try:
        kubeconfig = Path(first_json(process)["kubeconfig"])
        for each in (kubeconfig, sandbox.kubeconfig):
            run_pod(each, "beside", f"exec sleep {number}")
            kubectl(each, "wait", "--for=jsonpath={.status.phase}=Running", "pod/beside", "--timeout=15s")
        addresses = {
            kubectl(each, "get", "pod", "beside", "-o", "jsonpath={.status.podIP}")
            for each in (kubeconfig, sandbox.kubeconfig)
        }
        assert len(addresses) == 2
        assert len(processes(f"sleep\0{number}")) == 2
        assert end(process, signal.SIGINT, ENDS_WITHIN_S) == 130
        assert not headwater.directory("second").exists()
        assert not processes(str(headwater.directory("second")))
        assert len(processes(f"sleep\0{number}")) == 1
        assert phase(sandbox.kubeconfig, "beside") == "Running"
    finally:
        if process.poll() is None:
            end(process, signal.SIGTERM, ENDS_WITHIN_S)


def test_a_killed_node_takes_its_containers_along_and_the_cluster_goes_on(own_sandbox: Sandbox) -> None:
    number = f"5{secrets.randbelow(10**8):08}"
    run_pod(
        own_sandbox.kubeconfig,
        "lost",
        f"exec sleep {number}",
        nodeSelector={"topology.kubernetes.io/region": "us"},
    )
    poll("it runs", 15, lambda: processes(f"sleep\0{number}"))
    state = json.loads((own_sandbox.directory / "state.json").read_text())
    os.kill(state["processes"]["node-us-1"], signal.SIGKILL)
    wait_gone(f"sleep\0{number}", 5)
    ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    poll(
        "the node is seen as lost",
        30,
        lambda: kubectl(own_sandbox.kubeconfig, "get", "node", "us-1", "-o", ready) == "Unknown",
    )


def test_it_ends_with_the_process_it_was_bound_to(own_sandbox: Sandbox) -> None:
    number = f"4{secrets.randbelow(10**8):08}"
    run_pod(
        own_sandbox.kubeconfig,
        "last",
        f"exec sleep {number}",
        nodeSelector={"topology.kubernetes.io/region": "eu"},
    )
    poll("it runs", 15, lambda: processes(f"sleep\0{number}"))
    own_sandbox.guardian.kill()
    wait_gone(str(own_sandbox.directory), 20)
    assert not processes(f"sleep\0{number}")
    status = own_sandbox.headwater.run("status", "--json", "--name", own_sandbox.name)
    assert (status.returncode, status.stdout) == (1, "")
    assert "headwater sandbox up" in status.stderr
    assert own_sandbox.headwater.run("down", "--name", own_sandbox.name).returncode == 0
    assert not own_sandbox.directory.exists()
