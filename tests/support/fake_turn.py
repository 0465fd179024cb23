"""Plays the agents of a namespace's TURN Pods: the real admin port over figures that the test sets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from headwater_api import wellknown as wk
from headwater_operator.kube.errors import KubeError
from headwater_turn.admin import serve_admin
from headwater_turn.config import TurnConfig
from headwater_turn.desired import Desired, Status
from headwater_turn.usage import Usage
from support.fake_kubelet import FakeKubelet


@dataclass
class FakeTurn:
    """One agent; `wish` is what the operator said last."""

    name: str
    region: str
    allocations: int = 0
    wish: Desired = field(default_factory=Desired)
    usage: Usage = field(default_factory=Usage)
    counts: dict[str, int] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def status(self) -> Status:
        draining = self.wish.draining
        return Status(
            node=self.name, region=self.region, version="4.6.1", ready=not draining,
            why="draining" if draining else "",
            draining=draining, closing=False, drained=draining and self.allocations == 0,
            allocations=self.allocations, allocations_total=self.allocations, mbps=1.0,
            peers=len(self.wish.peers), accepted=self.wish.secrets, packet_filter=False, tls_port=0,
            certificate_expires=None,
        )  # fmt: skip

    async def desire(self, desired: Desired) -> Status:
        self.wish = desired
        return self.status()


@asynccontextmanager
async def fake_turns(kubelet: FakeKubelet, token: str) -> AsyncIterator[dict[str, FakeTurn]]:
    """Agents for all TURN Pods that get an address during the block, by Pod name."""
    made: dict[str, FakeTurn] = {}
    async with AsyncExitStack() as stack:

        async def follow() -> None:
            while True:
                with contextlib.suppress(KubeError):
                    for pod in await kubelet.pods():
                        name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
                        ip = pod.get("status", {}).get("podIP")
                        if labels.get(wk.LABEL_COMPONENT) != wk.COMPONENT_TURN or not ip or name in made:
                            continue
                        turn = FakeTurn(name, labels[wk.LABEL_REGION])
                        place = Path("/nonexistent")
                        config = TurnConfig(name, turn.region, ip_address(ip), token, place, place)
                        await stack.enter_async_context(serve_admin(turn, config))
                        made[name] = turn
                await asyncio.sleep(0.05)

        task = asyncio.create_task(follow())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
