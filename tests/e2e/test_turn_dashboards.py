"""TURN nodes in a whole cluster, from a Secret to a relayed packet; and dashboards over what it measures."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from headwater_api import wellknown as wk
from headwater_sandbox.config import CLUSTER_NAME, NAMESPACE, TURN_SECRET
from support.clients import bot_spec, bots, until_seen
from support.cluster import Cluster
from support.dashboards import BOARDS, expressions, substitute
from support.deadline import until
from support.prometheus import Prometheus, prometheus
from support.protocol_client import ProtocolClient
from support.turn_probe import Refused, TurnProbe

pytestmark = pytest.mark.timeout(150)
TURN_PODS = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_TURN}"
REGIONS = {"eu", "us", "ap"}
QUALITY = "headwater_gateway_participant_seconds_total > 0"


def pods(cluster: Cluster, labels: str) -> list[dict[str, Any]]:
    listed = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", labels, "-o", "json")
    found: list[dict[str, Any]] = json.loads(listed)["items"]
    return found


def ready(pod: dict[str, Any]) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions") or ()}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def set_turn(cluster: Cluster, **turn: Any) -> None:
    patch = json.dumps({"spec": {"turn": turn}})
    cluster.kubectl("patch", "sfucluster", CLUSTER_NAME, "-n", NAMESPACE, "--type=merge", "-p", patch)


@pytest.fixture
async def turn_nodes(cluster: Cluster) -> AsyncIterator[dict[str, dict[str, Any]]]:
    """A ready TURN Pod in each region; all are drained and gone afterwards."""
    secret = (
        "create",
        "secret",
        "generic",
        TURN_SECRET,
        "-n",
        NAMESPACE,
        f"--from-literal=current={'s' * 32}",
    )
    cluster.kubectl(*secret)
    # A kubelet looks at mounted Secrets once a minute or so, and whenever their Pod changes.
    gateways = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_GATEWAY}"
    cluster.kubectl(
        "annotate", "pods", "-n", NAMESPACE, "-l", gateways, "--overwrite", "headwater.dev/test=turn"
    )
    references = [{"name": TURN_SECRET, "key": "current"}]
    set_turn(cluster, minPerRegion=1, maxPerRegion=2, sharedSecretRefs=references, drain={"deadline": "1s"})
    try:

        def all_ready() -> dict[str, dict[str, Any]] | None:
            found = {
                p["metadata"]["labels"][wk.LABEL_REGION]: p for p in pods(cluster, TURN_PODS) if ready(p)
            }
            return found if set(found) == REGIONS else None

        yield await until(all_ready, 60, "a TURN node of each region is ready", every_s=0.3)
    finally:
        set_turn(cluster, minPerRegion=0, maxPerRegion=0)
        await until(lambda: not pods(cluster, TURN_PODS), 60, "all TURN nodes are drained", every_s=0.3)
        cluster.kubectl("delete", "secret", TURN_SECRET, "-n", NAMESPACE)


async def first_server(cluster: Cluster, region: str) -> Any:
    """The TURN server that a client of that region is told first."""
    token = cluster.token("turn-room", f"guest-{region}-{time.monotonic_ns()}")
    async with ProtocolClient(cluster.gateway, token, region=region) as client:
        assert client.join is not None
        return client.join.ice_servers[0] if client.join.ice_servers else None


async def test_clients_get_their_regions_turn_node_which_reaches_sfu_nodes_only(
    cluster: Cluster, turn_nodes: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    sfu = pods(cluster, f"{wk.LABEL_COMPONENT}={wk.COMPONENT_SFU}")[0]["status"]["podIP"]
    for region, pod in turn_nodes.items():
        ip = pod["status"]["podIP"]

        async def told(region: str = region, ip: str = ip) -> Any:
            server = await first_server(cluster, region)
            return server if server is not None and ip in server.urls[0] else None

        server = await until(told, 20, f"clients of {region} are sent to {ip}", every_s=0.3)
    async with TurnProbe((ip, wk.PORT_TURN), server.username, server.credential) as probe:

        async def permitted() -> bool:  # coturn reads its peers each five seconds
            try:
                await probe.permit((sfu, wk.PORT_MEDIA))
            except Refused as refused:
                assert refused.code == 403
                return False
            return True

        await until(permitted, 15, "the SFU node is reached", every_s=0.3)
        with pytest.raises(Refused):
            await probe.permit(("10.0.0.1", wk.PORT_MEDIA))
        specs = [
            bot_spec(cluster, "shown", who, n, region)
            for n, (who, region) in enumerate((("ann", "eu"), ("bob", "us")))
        ]
        with prometheus(cluster, tmp_path) as prom:
            async with bots(specs) as fleet:
                await until_seen(fleet, [("ann", "bob"), ("bob", "ann")], 60)
                await until(lambda: has_read(prom, QUALITY), 30, "Prometheus has read a quality", every_s=0.5)
                # A rate needs one who joins while somebody looks.
                await fleet.start([bot_spec(cluster, "shown", "cid", 2, "eu")], seed=2)
                await no_panel_is_empty(prom)
        await probe.release()  # the drain that follows would wait for it


async def has_read(prom: Prometheus, expression: str) -> bool:
    """Whether it is found; not while Prometheus still starts."""
    try:
        return await prom.count(expression) > 0
    except OSError:
        return False


async def no_panel_is_empty(prom: Prometheus) -> None:
    """Every query of every dashboard finds a number, as soon as rates and qualities have been measured."""

    async def empty() -> list[str]:
        found = []
        for name, board in BOARDS.items():
            for title, expression in expressions(board):
                if not await prom.count(substitute(expression)):
                    found.append(f"{name}: {title}")
        return found

    missing: list[str] = []

    async def none_missing() -> bool:
        missing[:] = await empty()
        return not missing

    try:
        await until(none_missing, 40, "every panel shows something", every_s=1.0)
    except AssertionError as error:
        raise AssertionError(f"{error}: {missing}") from None
