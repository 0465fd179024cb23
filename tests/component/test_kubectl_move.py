"""`kubectl headwater move MEETING PARTICIPANT`, with a real API server before real gateways."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from support.deadline import until
from support.gateway_edge import API_KEY, API_SECRET
from support.gateways import Gateways, SignalClient, running_gateways
from support.kube import KUBECTL, ApiServer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateways]:
    async with running_gateways(tmp_path, monkeypatch, 2) as gateways:
        yield gateways


def declare_pod(api_server: ApiServer, namespace: str, ip: str, port: int, *, ready: bool = True) -> None:
    """A gateway's Pod as the chart has it, and the Secret with its API keys."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": namespace},
        "stringData": {API_KEY: API_SECRET + "\n"},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "gateway-1",
            "namespace": namespace,
            "labels": {"app.kubernetes.io/component": "gateway"},
        },
        "spec": {
            "serviceAccountName": "gateway",
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "gateway",
                    "image": "none",
                    "ports": [{"name": "signal", "containerPort": port}],
                }
            ],
            "volumes": [{"name": "api-keys", "secret": {"secretName": "keys"}}],
        },
    }
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "gateway", "namespace": namespace},
    }
    for body in (account, secret, pod):
        api_server.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [condition]}
    patch = json.dumps({"status": status})
    api_server.kubectl("patch", "pod", "gateway-1", "-n", namespace, "--subresource=status", "-p", patch)


async def move(kubeconfig: Path, namespace: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{KUBECTL.parent}:{os.environ['PATH']}"}
    flags = [f"--kubeconfig={kubeconfig}", f"--namespace={namespace}", "--wait=30"]
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "headwater_cli.plugin", "move", *arguments, *flags],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@asynccontextmanager
async def seen_at(ip: str, target: str) -> AsyncIterator[int]:
    """The port of `ip` behind which the gateway at `target` (a URL) is."""
    goal = urlsplit(target)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(goal.hostname, goal.port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(serve, ip, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def own_address() -> str:
    """One of this machine that is no loopback address: an API server passes calls on to no others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has loopback addresses only")
        address: str = probe.getsockname()[0]
        return address


@pytest.mark.parametrize("way", ["through the API server", "directly"])
async def test_one_participant_is_led_to_a_node_or_region(
    pair: Gateways, api_server: ApiServer, namespace: str, way: str
) -> None:
    """Asked of the gateway that does not have the room: it passes the call on."""
    other = pair.urls[1 - pair.owner("demo")]
    ip = own_address() if way == "through the API server" else str(urlsplit(other).hostname)
    async with seen_at(ip, other) as port, SignalClient(pair.urls[0], "bob") as bob:
        declare_pod(api_server, namespace, ip, port)
        here = bob.me.attributes["headwater.node"]
        there = "us-1" if here == "eu-1" else "eu-1"
        wish = ["--to", there] if way == "directly" else ["--region", there[:2]]
        asked = asyncio.create_task(move(api_server.kubeconfig, namespace, "demo", "bob", *wish))
        state = pair.planes[pair.owner("demo")].directory.rooms()[0].state
        await until(lambda: state.participants[bob.me.sid].node_id == there or asked.done(), 40, "he is led")
        assert not asked.done(), await asked
        pair.connect(bob.me)
        done = await asked
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            f"bob is led from {here} ({here[:2]}) to {there} ({there[:2]})",
            f"bob is on {there} ({there[:2]}) now, and no longer on {here} ({here[:2]})",
        ]
        again = await move(api_server.kubeconfig, namespace, "demo", "bob", *wish)
        assert again.stdout == f"bob is on {there} ({there[:2]}) already: nothing was done\n"


async def test_who_cannot_be_moved_stays_and_the_reason_is_told(
    pair: Gateways, api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def refusal(*arguments: str, kubeconfig: Path = api_server.kubeconfig) -> str:
        done = await move(kubeconfig, namespace, *arguments)
        assert done.returncode == 1, (done.stdout, done.stderr)
        assert done.stdout == "" and API_SECRET not in done.stderr and "Traceback" not in done.stderr
        return done.stderr

    assert "no gateway Pod in this namespace" in await refusal("demo", "bob")
    ip, port = str(urlsplit(pair.urls[0]).hostname), int(urlsplit(pair.urls[0]).port or 0)
    declare_pod(api_server, namespace, ip, port, ready=False)
    assert "1 gateway Pods, none of them ready" in await refusal("demo", "bob")
    declare_pod(api_server, namespace, ip, port)
    assert "nobody is in a meeting 'demo' now" in await refusal("demo", "bob")
    async with SignalClient(pair.urls[0], "bob"):
        assert "nobody with the identity 'carl' is in the meeting 'demo'" in await refusal("demo", "carl")
        told = await refusal("demo", "bob", "--to", "us-9")
        assert "bob stays where it is: node_id: no SFU node of that name" in told and "us-9" in told
        assert "no SFU node of that region" in await refusal("demo", "bob", "--region", "moon")
        stranger = restricted(api_server, namespace, tmp_path)
        told = await refusal("demo", "bob", kubeconfig=stranger)
        assert "API keys cannot be read" in told and 'secrets "keys" is forbidden' in told


def restricted(api_server: ApiServer, namespace: str, folder: Path) -> Path:
    """The kubeconfig of somebody who may see the namespace's Pods and nothing else."""
    api_server.kubectl("create", "role", "looker", "-n", namespace, "--verb=get,list", "--resource=pods")
    api_server.kubectl("create", "rolebinding", "looker", "-n", namespace, "--role=looker", "--user=somebody")
    config: dict[str, Any] = yaml.safe_load(api_server.kubeconfig.read_text())
    for user in config["users"]:
        user["user"]["as"] = "somebody"
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize("wrong", [("demo", "--to", "us-1"), ("demo", "bob", "--to", "a", "--region", "b")])
async def test_what_makes_no_sense_is_not_asked(
    api_server: ApiServer, namespace: str, wrong: tuple[str, ...]
) -> None:
    done = await move(api_server.kubeconfig, namespace, *wrong)
    assert done.returncode == 2 and "--region" in done.stderr
