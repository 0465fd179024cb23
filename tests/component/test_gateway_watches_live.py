"""The gateway's watches against a real API server."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from headwater_api.ids import ClusterName, GatewayId, RegionName, RoomId
from headwater_dial.api_server import credentials, open_api
from headwater_gateway.directory.peers import Peers
from headwater_gateway.fleet import Fleet, Watches
from headwater_gateway.kube.meeting_secrets import MeetingSecrets
from headwater_gateway.meetings import Meetings
from headwater_gateway.passwords import Passwords
from headwater_gateway.room.directory import DirectoryOptions, RoomDirectory
from headwater_gateway.room.model import RoomConfig
from headwater_gateway.turn.servers import TurnServers
from support.deadline import until
from support.kube import ApiServer


@dataclass
class Scene:
    """A namespace, and what a gateway knows of it."""

    server: ApiServer
    namespace: str
    directory: RoomDirectory
    fleet: Fleet
    watches: Watches

    async def kubectl(self, *args: str, stdin: str | None = None) -> None:
        await asyncio.to_thread(self.server.kubectl, "-n", self.namespace, *args, stdin=stdin)

    async def apply(self, body: dict[str, Any]) -> None:
        await self.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(body))


@pytest.fixture
async def scene(api_server: ApiServer, namespace: str) -> AsyncIterator[Scene]:
    directory = RoomDirectory(GatewayId("gw"), "token", DirectoryOptions())
    links = Peers(dict)
    turn = TurnServers("token", None, dict, lambda _: None, lambda _: None)
    secrets = MeetingSecrets(Passwords(), random.Random(1))
    fleet = Fleet(directory, RoomConfig(), secrets, turn=turn, links=links, meetings=Meetings())
    api = open_api(await credentials({"KUBECONFIG": str(api_server.kubeconfig)}))
    watches = Watches(api, namespace, fleet, random.Random(1))
    watches.start()
    try:
        await until(lambda: not watches.missing(), 10, "everything was read once")
        yield Scene(api_server, namespace, directory, fleet, watches)
    finally:
        await watches.aclose()
        await links.aclose()
        await turn.aclose()
        await directory.aclose(0.5)


async def test_regions_of_clusters(scene: Scene) -> None:
    region = {"minNodes": 1, "maxNodes": 2, "nodeSelector": {"a": "b"}}
    eu = {"name": "eu", "coordinates": {"latitude": 50.1, "longitude": 8.7}, **region}
    us = {"name": "us", "coordinates": {"latitude": 39, "longitude": -77.5}, **region}
    cluster = {
        "apiVersion": "headwater.dev/v1alpha1",
        "kind": "SFUCluster",
        "metadata": {"name": "demo"},
        "spec": {"regions": [eu, us]},
    }
    await scene.apply(cluster)
    await until(lambda: set(scene.fleet.regions()) == {"eu", "us"}, 10, "both regions are known")
    place = scene.fleet.regions()[RegionName("eu")]
    assert place is not None and place.latitude == 50.1
    await scene.kubectl("delete", "sfucluster", "demo")
    await until(lambda: not scene.fleet.regions(), 10, "no region is left")


async def test_meetings_set_and_end_the_policy_of_rooms(scene: Scene) -> None:
    meeting = {
        "apiVersion": "headwater.dev/v1alpha1",
        "kind": "Meeting",
        "metadata": {"name": "standup"},
        "spec": {
            "clusterRef": {"name": "demo"},
            "maxParticipants": 3,
            "emptyTimeout": "90s",
            "media": {"audioTopN": 5},
        },
    }
    await scene.apply(meeting)

    def config() -> RoomConfig | None:
        return scene.directory.meeting(RoomId("standup"))

    await until(lambda: config() is not None, 10, "the Meeting is known")
    assert config() == RoomConfig(
        is_declared=True,
        max_participants=3,
        empty_timeout_s=90,
        departure_timeout_s=90,
        cluster=ClusterName("demo"),
        audio_top_n=5,
    )
    meeting["spec"] = {**meeting["spec"], "maxParticipants": 4}  # type: ignore[dict-item]
    await scene.apply(meeting)
    await until(lambda: (found := config()) and found.max_participants == 4, 10, "the change is known")
    await scene.kubectl("delete", "meeting", "standup")
    await until(lambda: config() is None, 10, "the Meeting is gone")


async def test_only_pods_of_sfu_nodes_with_an_address_are_nodes(scene: Scene) -> None:
    for name, component, address in (
        ("sfu-1", "sfu-node", "127.0.0.1"),
        ("sfu-2", "sfu-node", ""),
        ("other", "gateway", "127.0.0.1"),
    ):
        labels = {
            "app.kubernetes.io/managed-by": "headwater",
            "app.kubernetes.io/component": component,
            "headwater.dev/region": "eu",
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "c", "image": "none"}], "automountServiceAccountToken": False},
        }
        await scene.kubectl("create", "serviceaccount", f"sa-{name}")
        pod["spec"]["serviceAccountName"] = f"sa-{name}"  # type: ignore[index]
        await scene.apply(pod)
        if address:
            status = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
            await scene.kubectl(
                "patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps(status)
            )
    await until(lambda: scene.directory.pool.pods() == {"sfu-1"}, 10, "one node is known")
    await scene.kubectl("delete", "pod", "sfu-1", "--grace-period=0", "--force")
    await until(lambda: not scene.directory.pool.pods(), 10, "it is gone")
