"""10,000 Meetings and 240 nodes: what the operator costs, and how soon a change is carried out.

`HEADWATER_CHAOS_MEETINGS` and `HEADWATER_CHAOS_NODES` set the size.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from headwater_api.meeting import Meeting
from headwater_api.sfucluster import SFUCluster
from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.resources import MEETINGS, SFUCLUSTERS
from headwater_planner.meeting import MeetingWorld, plan_meeting
from support.deadline import until
from support.fake_kubelet import FakeKubelet, fake_kubelet
from support.kube import ApiServer
from support.operator_fixtures import Fleet, client, fleet
from support.operator_process import TOKEN, OperatorProcess, operator_process

__all__ = ["client", "fleet"]
COUNT = int(os.environ.get("HEADWATER_CHAOS_MEETINGS", "10000"))
NODES = int(os.environ.get("HEADWATER_CHAOS_NODES", "240"))
STEADY_S = float(os.environ.get("HEADWATER_CHAOS_STEADY", "60"))
SETTLED_S = 30.0  # the watches have told all, and a relist has been
PROBES = 100
ACTIVE = 300  # Meetings that people are in
RSS_LIMIT_MB, CPU_LIMIT_CORES, P99_LIMIT_S = 400, 0.3, 5.0
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]
_TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture
async def big_kubelet(client: KubeClient, namespace: str) -> AsyncIterator[FakeKubelet]:
    async with fake_kubelet(client, namespace, token=TOKEN) as started:
        started.interval_s, started.pause_s = 1.0, 1.0
        yield started


def cpu_s(operator: OperatorProcess) -> float:
    """User and system time so far, seconds."""
    fields = Path(f"/proc/{operator.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def peak_mb(operator: OperatorProcess) -> float:
    """The most RSS that it has had so far: what a limit of memory acts on."""
    lines = Path(f"/proc/{operator.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


async def declare_meetings(client: KubeClient, namespace: str, count: int) -> None:
    """Meetings as in a cell that has been running: with the status that an operator gives them. At ten
    status writes a second its own would take a quarter of an hour."""
    limit = asyncio.Semaphore(64)
    cluster = SFUCluster.from_kubernetes(await client.get(SFUCLUSTERS, namespace, "demo"))

    async def one(number: int) -> None:
        body = {
            "apiVersion": MEETINGS.api_version,
            "kind": MEETINGS.kind,
            "metadata": {"name": f"m-{number}", "namespace": namespace},
            "spec": {"clusterRef": {"name": "demo"}},
        }
        async with limit:
            created = Meeting.from_kubernetes(await client.create(MEETINGS, namespace, body))
            status = plan_meeting(MeetingWorld(created, cluster), datetime.now(UTC)).status
            written = {"metadata": {"name": f"m-{number}"}, "status": status.to_kubernetes()}
            await client.apply(MEETINGS, namespace, f"m-{number}", written, subresource="status")

    await asyncio.gather(*(one(number) for number in range(count)))


async def test_a_large_cell(
    api_server: ApiServer, namespace: str, client: KubeClient, big_kubelet: FakeKubelet, fleet: Fleet
) -> None:
    share = NODES // 3
    environ = {
        "HEADWATER_NAMESPACES": namespace, "HEADWATER_LEASE_DURATION": "15", "HEADWATER_RESYNC": "30"
    }  # fmt: skip
    probe = KubeProbe(client, namespace)
    with operator_process(api_server.kubeconfig, namespace, **environ) as operator:
        await fleet.declare({region: (share, share) for region in ("eu", "us", "ap")})
        began = time.monotonic()
        await until(lambda: len(big_kubelet.nodes) == share * 3, 600, "all nodes are up", every_s=1)
        print(f"{share * 3} nodes up after {time.monotonic() - began:.0f} s")
        for number, node in enumerate(big_kubelet.nodes.values()):
            meetings = {f"m-{(number * 7 + i) % ACTIVE}": 5 for i in range(10)}
            node.set_rooms(meetings | {f"ad-hoc-{number}-{i}": 3 for i in range(10)})
        await fleet.says("Ready", "True", 60)
        await declare_meetings(client, namespace, COUNT)
        print(f"{COUNT} Meetings declared after {time.monotonic() - began:.0f} s")
        await until(probe.all_are_told, 600, "every active Meeting says so", every_s=5)
        print(f"{ACTIVE} active Meetings say so after {time.monotonic() - began:.0f} s")
        before, at = cpu_s(operator), time.monotonic()
        await until(lambda: time.monotonic() - at >= STEADY_S, STEADY_S + 30, "a steady while", every_s=1)
        cores = (cpu_s(operator) - before) / (time.monotonic() - at)
        delays = sorted([await probe.delay(number) for number in range(PROBES)])
        p99 = delays[int(len(delays) * 0.99) - 1]
        p50 = delays[len(delays) // 2]
        memory = peak_mb(operator)
        print(f"steady {cores:.2f} cores, RSS {memory:.0f} MB at most")
        print(f"change to status p50 {p50:.2f} s, p99 {p99:.2f} s (N={PROBES})")
        assert memory <= RSS_LIMIT_MB
        assert cores <= CPU_LIMIT_CORES
        assert p99 <= P99_LIMIT_S
    with operator_process(api_server.kubeconfig, namespace, "op-2", **environ) as successor:
        began = time.monotonic()
        await probe.delay(PROBES)  # all of them come to it at once
        print(f"a successor is at work after {time.monotonic() - began:.0f} s")
        await until(lambda: time.monotonic() - began >= SETTLED_S, SETTLED_S + 30, "a while", every_s=1)
        memory = peak_mb(successor)
        print(f"a successor: RSS {memory:.0f} MB at most")
        assert memory <= RSS_LIMIT_MB


class KubeProbe:
    """How long a change of a Meeting takes to show in its status."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    async def all_are_told(self) -> bool:
        """Whether those with people in them say so."""
        found = [await self._client.get(MEETINGS, self._namespace, f"m-{n}") for n in range(ACTIVE)]
        return all((meeting.get("status") or {}).get("participants") for meeting in found)

    async def delay(self, number: int) -> float:
        name = f"m-{number * (COUNT // PROBES) % COUNT}"
        body = {"metadata": {"name": name}, "spec": {"clusterRef": {"name": "demo"}, "title": f"t{number}"}}
        written = await self._client.apply(MEETINGS, self._namespace, name, body)
        generation, at = written["metadata"]["generation"], time.monotonic()

        async def seen() -> bool:
            meeting = await self._client.get(MEETINGS, self._namespace, name)
            return bool((meeting.get("status") or {}).get("observedGeneration") == generation)

        await until(seen, 60, f"{name} is reconciled", every_s=0.02)
        return time.monotonic() - at
