"""Draws every dashboard over a loaded sandbox, into docs/pictures.

    python tests/bench/draw_dashboards.py --python PYTHON_WITH_MATPLOTLIB [--minutes 4]

Three regions with TURN; bots in all of them, of whom some come and go; one region grows by a node and one
node is drained. No timed test: what it leaves is for the documentation.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from headwater_api import wellknown as wk
from headwater_sandbox.config import CLUSTER_NAME, NAMESPACE, TURN_SECRET
from support.alerting import JOBS, followed, pods, ready
from support.clients import bot_spec, bots, until_seen
from support.cluster import Cluster, running_cluster
from support.deadline import until
from support.kube import ROOT
from support.prometheus import prometheus
from support.protocol_client import ProtocolClient
from support.turn_probe import TurnProbe

REGIONS: Final = ("eu", "us", "ap")


def patch(cluster: Cluster, spec: dict[str, Any]) -> None:
    body = json.dumps({"spec": spec})
    cluster.kubectl("patch", "sfucluster", CLUSTER_NAME, "-n", NAMESPACE, "--type=merge", "-p", body)


def with_turn(cluster: Cluster) -> None:
    """A TURN node for each region; ready when it returns."""
    secret = f"--from-literal=current={'s' * 32}"
    cluster.kubectl("create", "secret", "generic", TURN_SECRET, "-n", NAMESPACE, secret)
    # A kubelet looks at mounted Secrets once a minute or so, and whenever their Pod changes.
    gateways = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_GATEWAY}"
    cluster.kubectl("annotate", "pods", "-n", NAMESPACE, "-l", gateways, "headwater.dev/test=turn")
    references = [{"name": TURN_SECRET, "key": "current"}]
    patch(cluster, {"turn": {"minPerRegion": 1, "maxPerRegion": 2, "sharedSecretRefs": references}})


def grow(cluster: Cluster) -> None:
    """One more node in the first region."""
    fleet = json.loads(cluster.kubectl("get", "sfucluster", CLUSTER_NAME, "-n", NAMESPACE, "-o", "json"))
    regions = fleet["spec"]["regions"]
    regions[0]["minNodes"] = regions[0].get("minNodes", 1) + 1
    patch(cluster, {"regions": regions})


@contextlib.asynccontextmanager
async def relayed(cluster: Cluster) -> AsyncIterator[None]:
    """A client of each region asks its TURN node for a way to an SFU node, and sends."""
    (sfu, *_) = pods(cluster, wk.COMPONENT_SFU)
    peer = (sfu["status"]["podIP"], wk.PORT_MEDIA)
    async with contextlib.AsyncExitStack() as stack:
        for region in REGIONS:

            async def told(region: str = region) -> Any:
                token = cluster.token("turn-room", f"guest-{region}-{time.monotonic_ns()}")
                async with ProtocolClient(cluster.gateway, token, region=region) as client:
                    return client.join.ice_servers[0] if client.join and client.join.ice_servers else None

            server = await until(told, 30, f"clients of {region} are told of TURN", every_s=0.5)
            host = server.urls[0].split(":")[1]
            probe = TurnProbe((host, wk.PORT_TURN), server.username, server.credential)
            await stack.enter_async_context(probe)
            await asyncio.sleep(6)  # coturn reads its peers each five seconds
            await probe.permit(peer)
        yield


async def live(cluster: Cluster, minutes: float) -> None:
    """Calls that come and go, a region that grows, a node that is drained."""
    ends = time.monotonic() + minutes * 60
    named = [(f"bot-{n}", region) for n, region in enumerate(REGIONS * 2)]
    specs = [bot_spec(cluster, "standup", who, n, region) for n, (who, region) in enumerate(named)]
    async with bots(specs) as fleet:
        everybody = [(a, b) for a, _ in named for b, _ in named if a != b]
        await until_seen(fleet, everybody, 90)
        await asyncio.to_thread(grow, cluster)
        drained = False
        number = 0
        while time.monotonic() < ends:
            number += 1
            pair = [
                bot_spec(cluster, f"call-{number}", f"{who}-{number}", n, REGIONS[(number + n) % 3])
                for n, who in enumerate(("ann", "bob"))
            ]
            async with bots(pair) as call:
                names = [spec.identity for spec in pair]
                await until_seen(call, [(names[0], names[1]), (names[1], names[0])], 60)
                await asyncio.sleep(15)
            if not drained and time.monotonic() > ends - minutes * 30:
                await asyncio.to_thread(cluster.kubectl, "cordon", "us-1")
                drained = True


async def run(python: str, minutes: float, out: Path) -> None:
    with tempfile.TemporaryDirectory() as tmp, contextlib.ExitStack() as stack:
        directory = Path(tmp)
        cluster = stack.enter_context(running_cluster())
        await asyncio.to_thread(with_turn, cluster)
        stack.enter_context(followed(cluster, directory))
        prom = stack.enter_context(prometheus(cluster, directory, jobs=JOBS))

        def turn_ready() -> bool:
            return ready(pods(cluster, wk.COMPONENT_TURN)) == len(REGIONS)

        await until(lambda: asyncio.to_thread(turn_ready), 90, "TURN nodes are ready", every_s=0.5)
        async with relayed(cluster):
            await live(cluster, minutes)
        draw = [python, str(ROOT / "dashboards" / "draw.py"), prom.url, str(out), "--minutes", str(minutes)]
        await asyncio.to_thread(subprocess.run, draw, check=True, timeout=300, env={**os.environ})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.python, arguments.minutes, arguments.out))


if __name__ == "__main__":
    main()
