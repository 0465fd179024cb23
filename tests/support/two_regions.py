"""Two regions, each with a gateway and a node, whose connection can be cut and mended."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from headwater_api import wellknown
from headwater_api.ids import GatewayId, RoomId
from headwater_gateway.directory.liveness import Verdict
from headwater_gateway.plane import Plane
from headwater_gateway.room.actor import RoomActor
from support.deadline import until
from support.fake_node import FakeNode, serving
from support.gateway_edge import NODE_TOKEN, edge_settings
from support.gateway_fleet import Balancer
from support.gateways import gateway_running
from support.processes import loopback_address

REGIONS = ("eu", "us")


@dataclass
class TwoRegions:
    """Gateway `gw-0` and node `eu-1`, gateway `gw-1` and node `us-1`."""

    nodes: list[FakeNode] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    planes: list[Plane] = field(default_factory=list)
    _doors: list[Balancer] = field(default_factory=list)
    _open: AsyncExitStack = field(default_factory=AsyncExitStack)

    def way_to(self, address: str, port: int) -> str:
        """Another address of what is in the other region: nothing listens there while the regions are cut."""
        door = Balancer([(address, port)], loopback_address(), port)
        self._doors.append(door)
        return door.host

    async def mend(self) -> None:
        """The regions reach each other, and know it."""
        for door in self._doors:
            await self._open.enter_async_context(door)
        await until(lambda: self._sees(Verdict.ALIVE, 2), 15, "the regions see each other", 0.02)

    async def cut(self) -> None:
        """Every connection between them breaks, and they know it."""
        await self._open.aclose()
        await until(lambda: self._sees(Verdict.DEAD, 1), 15, "each region is alone", 0.02)

    def _sees(self, verdict: Verdict, nodes: int) -> bool:
        others = [
            plane._owners._peers.verdict(GatewayId(f"gw-{1 - n}")) for n, plane in enumerate(self.planes)
        ]
        return all(v is verdict for v in others) and all(
            len(plane.directory.pool.views()) == nodes for plane in self.planes
        )

    def owners(self, room: str) -> dict[int, RoomActor]:
        """The gateways that have the room."""
        found = ((n, plane.directory.room(RoomId(room))) for n, plane in enumerate(self.planes))
        return {n: actor for n, actor in found if actor is not None and not actor.state.ended}


@asynccontextmanager
async def two_regions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TwoRegions]:
    """Run them; the regions reach each other."""
    made = TwoRegions()
    signal, port = wellknown.PORT_SIGNAL, wellknown.PORT_NODE_GRPC
    addresses = [loopback_address() for _ in REGIONS]
    made.urls = [f"http://{address}:{signal}" for address in addresses]
    async with AsyncExitStack() as stack:
        for region in REGIONS:
            node = FakeNode(f"{region}-1", region, with_token=NODE_TOKEN)
            made.nodes.append(await stack.enter_async_context(serving(node, loopback_address(), port)))
        stack.push_async_callback(made._open.aclose)
        for number, address in enumerate(addresses):
            nodes, peers = [], []
            for n, node in enumerate(made.nodes):
                here, there = n == number, node.address.rpartition(":")[0]
                nodes.append(
                    f"{node.node_id}={node.region}@{there if here else made.way_to(there, port)}:{port}"
                )
                way = addresses[n] if here else made.way_to(addresses[n], signal)
                peers.append(f"gw-{n}=http://{way}:{signal}")
            monkeypatch.setenv("HEADWATER_STATIC_NODES", ",".join(nodes))
            monkeypatch.setenv("HEADWATER_STATIC_GATEWAYS", ",".join(peers))
            settings = edge_settings(
                folder,
                gateway=GatewayId(f"gw-{number}"),
                bind_address=address,
                signal_port=signal,
                region_override=True,
            )
            made.planes.append(await stack.enter_async_context(gateway_running(settings)))
        await made.mend()
        yield made
