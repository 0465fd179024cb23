"""A gateway and SFU nodes without Kubernetes: for tests that move people and kill nodes."""

import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from headwater_api import wellknown
from headwater_api.nodev1 import node_pb2, node_pb2_grpc
from headwater_sandbox.demo.spec import BotSpec
from headwater_sandbox.demo.tokens import make_token, signal_url
from support.deadline import until
from support.processes import Program, all_running, loopback_address, running

NODE_TOKEN, API_KEY, API_SECRET = "n" * 32, "devkey", "s" * 40


@dataclass
class StaticFleet:
    """One gateway over these nodes (name → program); a node's region is its name up to the dash."""

    gateway: Program
    nodes: dict[str, Program]
    stopped: set[int] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"ws://{self.gateway.address}:{wellknown.PORT_SIGNAL}"

    def bot(self, identity: str, source: int, region: str, room: str, **options: int) -> BotSpec:
        token = make_token(API_KEY, API_SECRET, room, identity, time.time())
        return BotSpec(identity, source, signal_url(self.url, region), token, **options)  # type: ignore[arg-type]

    async def drain(self, node: str, draining: bool = True, rate: float = 0.0) -> None:
        """As the operator does it."""
        address = f"{self.nodes[node].address}:{wellknown.PORT_NODE_GRPC}"
        metadata = (("authorization", f"Bearer {NODE_TOKEN}"),)
        async with grpc.aio.insecure_channel(address) as channel:
            request = node_pb2.SetDrainingRequest(draining=draining, reason="test", move_rate=rate)
            await node_pb2_grpc.NodeStub(channel).SetDraining(request, timeout=5, metadata=metadata)

    async def report(self, node: str) -> node_pb2.NodeReport:
        """The node's next report."""
        address = f"{self.nodes[node].address}:{wellknown.PORT_NODE_GRPC}"
        metadata = (("authorization", f"Bearer {NODE_TOKEN}"),)
        async with grpc.aio.insecure_channel(address) as channel:
            call = node_pb2_grpc.NodeStub(channel).Watch(node_pb2.WatchRequest(), metadata=metadata)
            async for response in call:
                if response.HasField("report"):
                    call.cancel()
                    return response.report
        raise AssertionError(f"{node} sent no report")

    def signal(self, node: str, number: signal.Signals) -> None:
        pid = self.nodes[node].process.pid
        os.kill(pid, number)
        if number == signal.SIGSTOP:
            self.stopped.add(pid)
        elif number == signal.SIGCONT:
            self.stopped.discard(pid)


@contextlib.asynccontextmanager
async def static_fleet(
    folder: Path, names: tuple[str, ...], env: Mapping[str, str] | None = None
) -> AsyncIterator[StaticFleet]:
    """Run them for the block; logs go to the folder."""
    keys = folder / "keys"
    keys.mkdir()
    (keys / API_KEY).write_text(API_SECRET)
    addresses = {name: loopback_address() for name in names}
    async with AsyncExitStack() as stack:
        started = (node_running(name, address, folder) for name, address in addresses.items())
        nodes = dict(zip(names, await all_running(stack, started), strict=True))
        listed = (f"{n}={region_of(n)}@{a}:{wellknown.PORT_NODE_GRPC}" for n, a in addresses.items())
        settings = {
            wellknown.ENV_POD_NAME: "gw-0",
            wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
            wellknown.ENV_API_KEYS_DIR: str(keys),
            "HEADWATER_REGION_OVERRIDE": "true",
            "HEADWATER_STATIC_NODES": ",".join(listed),
            **(env or {}),
        }
        program = running("headwater_gateway", settings, loopback_address(), folder / "gw-0.log")
        gateway = await stack.enter_async_context(program)
        await until(lambda: knows_nodes(gateway, len(names)), 20, "the gateway knows the nodes")
        fleet = StaticFleet(gateway, nodes)
        try:
            yield fleet
        finally:
            for pid in fleet.stopped:
                os.kill(pid, signal.SIGCONT)


async def knows_nodes(gateway: Program, count: int) -> bool:
    """Whether it can place participants on so many: it is ready before that."""
    up = re.findall(r"^headwater_gateway_nodes_up\{.*\} (\S+)$", await gateway.get("/metrics"), re.M)
    return sum(map(float, up)) == count


def region_of(node: str) -> str:
    return node.partition("-")[0]


def node_running(name: str, address: str, folder: Path) -> "contextlib.AbstractAsyncContextManager[Program]":
    """One SFU node as its Pod would run it."""
    env = {
        wellknown.ENV_POD_NAME: name,
        wellknown.ENV_REGION: region_of(name),
        wellknown.ENV_CLUSTER: "demo",
        wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
    }
    return running("headwater_sfu", env, address, folder / f"{name}.log")
