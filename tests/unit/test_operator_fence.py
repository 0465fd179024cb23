"""A replica that has lost the Lease tells no node anything, though that writes nothing to the API server."""

from typing import Any, cast

import pytest
from headwater_api.reasons import Reason
from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.errors import NotLeader
from headwater_operator.kube.events import EventRecorder
from headwater_operator.loop.act import Actor
from headwater_operator.metrics import Metrics
from headwater_operator.nodes.watch import NodeStreams
from headwater_operator.render.sfu_node import SfuDefaults
from headwater_planner.supply import DrainNode, UncordonNode
from support.fleet import NOW, a_world


class Told:
    """Stands for the streams and the events: what it was told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def drain(self, *_: Any) -> None:
        self.calls.append("drain")

    async def uncordon(self, *_: Any) -> None:
        self.calls.append("uncordon")

    def emit(self, *_: Any, **__: Any) -> None:
        pass


def lost() -> None:
    raise NotLeader("lease calls/headwater-operator is not held")


@pytest.mark.parametrize("leads", [True, False])
async def test_nodes_are_told_by_the_leader_only(leads: bool) -> None:
    told = Told()
    client = KubeClient(cast(Any, None)).fenced((lambda: None) if leads else lost, write_timeout_s=1.0)
    defaults = SfuDefaults(image="sfu:1", node_token_secret="token")
    actor = Actor(
        client, cast(NodeStreams, told), cast(EventRecorder, told), defaults=defaults, metrics=Metrics()
    )
    drain = DrainNode("a", "eu", Reason.UPGRADING, "it is old", NOW, 1.0)
    back = UncordonNode("b", "eu", Reason.DRAIN_CANCELLED, "2 nodes are wanted")
    for action in (drain, back):
        if leads:
            await actor.act(a_world(), [action])
        else:
            with pytest.raises(NotLeader):
                await actor.act(a_world(), [action])
    assert told.calls == (["drain", "uncordon"] if leads else [])
