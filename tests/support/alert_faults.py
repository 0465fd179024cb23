"""The faults of critical alerts. Each one is proven when its block begins, and taken back when it ends."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from headwater_api import wellknown as wk
from headwater_gateway.nodes.facts import PROMISE_LIFETIME_S
from headwater_sandbox.config import NAMESPACE
from support.alerting import CONNECTIONS, ROOM, Alert, Watched, pods, put_certificate, ready
from support.clients import bot_spec, bots, until_seen
from support.cluster import Cluster
from support.deadline import until
from support.protocol_client import ProtocolClient, socket_url

Listeners = list[ProtocolClient]
OPERATOR: Final = "headwater-operator"
EXPIRY: Final = "headwater_turn_certificate_expiry_timestamp_seconds"
LOSS: Final = 0.3


@dataclass(frozen=True)
class Fault:
    """`calls`: two callers and three listeners are there before it and after it."""

    alerts: tuple[Alert, ...]
    inject: Callable[[Watched, Listeners], AbstractAsyncContextManager[None]]
    calls: bool = False


@contextlib.asynccontextmanager
async def calls(cluster: Cluster) -> AsyncIterator[Listeners]:
    """Two callers who see each other, and three listeners, all on the node of eu."""
    specs = [bot_spec(cluster, ROOM, who, n, "eu") for n, who in enumerate(("ann", "bob"))]
    async with bots(specs) as callers, AsyncExitStack() as stack:
        await until_seen(callers, [("ann", "bob"), ("bob", "ann")], 60)
        listeners: Listeners = []
        for number in range(3):
            joined = time.monotonic()
            # Until then a place that was promised counts beside the connection that took it.
            await until(lambda at=joined: time.monotonic() > at + PROMISE_LIFETIME_S, 10, "promises lapse")
            token = cluster.token(ROOM, f"listener-{number}")
            client = ProtocolClient(cluster.gateway, token, region="eu")
            listeners.append(await stack.enter_async_context(client))

        def all_see() -> bool:
            return all(len([s for s in c.seen.values() if s.frames > 10]) >= 4 for c in listeners)

        await until(all_see, 30, "every listener decodes both callers", every_s=0.2)
        yield listeners


@contextlib.asynccontextmanager
async def no_machine(watched: Watched, _: Listeners) -> AsyncIterator[None]:
    """The nodes of ap are gone, and nothing new may be put on its machines."""
    cluster = watched.cluster
    machines = ("-l", "topology.kubernetes.io/region=ap")
    kinds = f"{wk.LABEL_COMPONENT} in ({wk.COMPONENT_SFU},{wk.COMPONENT_TURN}),{wk.LABEL_REGION}=ap"

    def nodes_ready() -> int:
        return ready(pods(cluster, wk.COMPONENT_SFU, "ap")) + ready(pods(cluster, wk.COMPONENT_TURN, "ap"))

    def take_away() -> None:
        cluster.kubectl("cordon", *machines)
        cluster.kubectl("delete", "pods", "-n", NAMESPACE, "-l", kinds, "--grace-period=0", "--force")

    assert await asyncio.to_thread(nodes_ready) == 2
    try:
        await asyncio.to_thread(take_away)
        await until(lambda: asyncio.to_thread(lambda: not nodes_ready()), 20, "ap has no node", every_s=0.5)
        yield
        assert not await asyncio.to_thread(nodes_ready), "the fault lasted"
    finally:
        await asyncio.to_thread(cluster.kubectl, "uncordon", *machines)


@contextlib.asynccontextmanager
async def old_certificate(watched: Watched, _: Listeners) -> AsyncIterator[None]:
    """TURN's certificate has a day left, by what the nodes themselves have read."""

    async def left_s() -> float:
        found = await watched.prom.query(f'min({EXPIRY}{{region="eu"}}) - time()')
        return float(found[0]["value"][1])

    async def is_old() -> bool:
        return await left_s() < 86_400

    assert await left_s() > 20 * 86_400
    try:
        await asyncio.to_thread(put_certificate, watched.cluster, watched.directory, 1)
        await until(is_old, 30, "the nodes have read the certificate", every_s=0.5)
        yield
    finally:
        await asyncio.to_thread(put_certificate, watched.cluster, watched.directory, 30)


@contextlib.asynccontextmanager
async def full_node(watched: Watched, listeners: Listeners) -> AsyncIterator[None]:
    """The room's only node takes nobody: each listener's second connection was its last. People knock."""
    cluster = watched.cluster
    (node,) = await asyncio.to_thread(pods, cluster, wk.COMPONENT_SFU, "eu")
    for number, client in enumerate(listeners):
        await client.publish(number + 5)

    async def full() -> bool:
        return await _connections(node["status"]["podIP"]) >= CONNECTIONS

    async def knock() -> None:
        assert await _join_status(cluster, f"late-{time.monotonic_ns()}") == 503

    await until(full, 30, "eu is full", every_s=0.2)
    async with repeated(knock, 1.0):
        yield
    await listeners[0].leave()
    await listeners[1].leave()


@contextlib.asynccontextmanager
async def loss(watched: Watched, listeners: Listeners) -> AsyncIterator[None]:
    """Of what the node sends, three of five get but a part."""
    rng = random.Random(1)
    for client in listeners:
        client.lose(LOSS, rng)

    async def suffer() -> bool:
        heard = 'sum(increase(headwater_gateway_loss_ratio_bucket{direction="downlink",le="%s"}[20s]))'
        found = await watched.prom.query(f"{heard % '+Inf'} - on () {heard % '0.05'} > 0")
        return bool(found)

    try:
        await until(suffer, 60, "the gateway hears of lost packets", every_s=0.5)
        yield
    finally:
        for client in listeners:
            client.lose(0, rng)


@contextlib.asynccontextmanager
async def no_operator(watched: Watched, _: Listeners) -> AsyncIterator[None]:
    """No operator, and so no series of one."""

    def scale(replicas: int) -> None:
        watched.cluster.kubectl("scale", "deployment", OPERATOR, "-n", NAMESPACE, f"--replicas={replicas}")

    def gone() -> bool:
        return not pods(watched.cluster, wk.COMPONENT_OPERATOR)

    try:
        await asyncio.to_thread(scale, 0)
        await until(lambda: asyncio.to_thread(gone), 40, "the operator is gone", every_s=0.5)
        yield
    finally:
        await asyncio.to_thread(scale, 1)


FAULTS: Final[dict[str, Fault]] = {
    # First: of the calls of other faults, the long windows would remember good minutes.
    "loss": Fault((("HeadwaterQualityFastBurn", ""), ("HeadwaterQualityBurn", "")), loss, calls=True),
    "no_machine": Fault((("HeadwaterNoReadyNodes", "ap"), ("HeadwaterTurnDown", "ap")), no_machine),
    "old_certificate": Fault((("HeadwaterCertificateExpired", "eu"),), old_certificate),
    "full_node": Fault(
        (("HeadwaterCapacityExhausted", "eu"), ("HeadwaterJoinFastBurn", ""), ("HeadwaterJoinBurn", "")),
        full_node,
        calls=True,
    ),
    "no_operator": Fault((("HeadwaterMetricsMissing", ""),), no_operator),
}


@contextlib.asynccontextmanager
async def repeated(work: Callable[[], Awaitable[Any]], every_s: float) -> AsyncIterator[None]:
    """`work()` again and again during the block; an error of it is raised at the block's end."""

    async def forever() -> None:
        while True:
            await work()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(forever())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _connections(address: str) -> int:
    """How many an SFU node has now, by its own word."""
    url = f"http://{address}:{wk.PORT_ADMIN}/status.json"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return int(json.loads(await response.text())["connections"])


async def _join_status(cluster: Cluster, identity: str) -> int:
    """What a join is answered with; 101 where it was admitted."""
    headers = {"Authorization": f"Bearer {cluster.token(ROOM, identity)}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        try:
            async with http.ws_connect(socket_url(cluster.gateway, region="eu")):
                return 101
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status
