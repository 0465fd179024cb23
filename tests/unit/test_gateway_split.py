"""Two gateways have one room each under the same name: the halves become one, for all who are in either."""

from collections.abc import AsyncIterator

import pytest
from headwater_api.ids import NodeId
from support.deadline import until
from support.two_gateways import World, publish, resume, two_gateways


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with two_gateways() as made:
        yield made


async def test_who_comes_back_from_the_lower_half_gets_what_the_upper_half_publishes(world: World) -> None:
    lower, upper = world.gateways
    bob = await lower.join("bob", "us")
    bobs = await publish(bob, "audio", "mic")
    await world.kept()
    ann = upper.connect("ann", "eu")
    await ann.wait("join")
    anns = await publish(ann, "audio", "mic")
    assert upper.room().keeper.claim > lower.room().keeper.claim
    await upper.succession.heal(upper.room(), frozenset([NodeId("us-1")]))
    await until(lambda: len(upper.room().state.participants) == 2, 15, "healed")
    await until(lambda: world.commands("us-1", "add_remote_track", "gw-b"), 15, "us-1 is told of ann's track")
    lower.room().hand_over("another gateway has the room", is_superseded=True)
    await until(lambda: bob.closed, 15, "bob's old connection is closed")

    back = await resume(upper, bob, "bob")

    def sent(node: str, track: str) -> bool:
        told = world.commands(node, "configure_send", "gw-b")
        return bool(told) and track in [s.track_id for s in told[-1].sections]

    await until(lambda: sent("us-1", anns), 15, "bob gets ann's track")
    await until(lambda: sent("eu-1", bobs), 15, "ann gets bob's track")
    await until(lambda: {"ann", "bob"} <= set(back.roster()), 15, "bob has the roster")
    await until(lambda: "bob" in ann.roster(), 15, "ann has bob")
    kinds = back.kinds()
    offered = next(i for i, m in enumerate(back.received) if m.HasField("offer") and anns in m.offer.sdp)
    told = [p.identity for m in back.received[:offered] for p in m.update.participants]
    assert "ann" in told, f"clients drop media of somebody that they have not heard of: {kinds}"
