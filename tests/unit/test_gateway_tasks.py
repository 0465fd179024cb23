"""A task that ends by a fault of ours says so."""

import asyncio

import pytest
from headwater_api.ids import NodeId, RegionName
from headwater_gateway.nodes.connection import NodeConnection
from headwater_gateway.nodes.facts import NodePod
from support.deadline import until
from support.gateway_world import gateway_world


async def test_a_node_whose_following_breaks_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(_: NodeConnection) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("a fault of ours")

    async with gateway_world() as world:
        monkeypatch.setattr(NodeConnection, "run", broken)
        world.directory.pool.pod_seen(NodePod(NodeId("eu-9"), RegionName("eu"), "127.0.0.1:1"))
        shown = ""

        def logged() -> bool:
            nonlocal shown
            shown += capsys.readouterr().out
            return "node.task_failed" in shown and "a fault of ours" in shown

        await until(logged, 15, "the log says so", 0.01)
