"""Relay links between two or three engines in one process."""

import time

from headwater_api.nodev1 import node_pb2
from support.deadline import until
from support.native_media import (
    LossyWire,
    Node,
    Picture,
    Publisher,
    Subscriber,
    Tone,
    closing,
    link,
    remote_track,
)


def link_report(node: Node, link_id: str = "RL_1") -> node_pb2.LinkReport:
    (found,) = [r for r in node.report().links if r.link_id == link_id]
    return found


async def test_a_track_crosses_a_link_only_while_it_is_wanted() -> None:
    a, b = Node("a"), Node("b")
    alice, bob = Publisher(a, "alice"), Subscriber(b, "bob")
    async with closing(alice, bob, a, b):
        await alice.publish({"TR_a": Tone(), "TR_v": Picture(200)})
        link(a, b)
        await until(
            lambda: any(e.relay.up for e in a.events) and any(e.relay.up for e in b.events), 5, "link up"
        )
        for section in alice.sections:
            remote_track(b, section)
        await until(lambda: a.live("TR_v") == [0], 5, "video live at its node")
        assert link_report(a).tx_tracks == 0, "nobody wants it yet"
        await bob.subscribe(alice.codecs)
        await until(lambda: len(bob.frames.get("video", [])) >= 30, 15, "30 pictures")
        await until(lambda: len(bob.frames.get("audio", [])) >= 50, 5, "50 audio frames")
        assert 150 < bob.brightness() < 215
        sent, received = link_report(a), link_report(b)
        assert (sent.tx_tracks, sent.rx_tracks, received.rx_tracks, received.tx_tracks) == (2, 0, 2, 0)
        assert 0 < received.rtt_ms < 500
        # A second subscriber on the same node costs the link nothing.
        carol = Subscriber(b, "carol")
        async with closing(carol):
            await carol.subscribe(alice.codecs)
            await until(lambda: len(carol.frames.get("video", [])) >= 10, 10, "10 pictures")
            assert link_report(a).tx_tracks == 2
        for name in ("bob", "carol"):
            b.do(close_transport=node_pb2.CloseTransport(transport_id=f"{name}/sub"))
        await until(lambda: link_report(a).tx_tracks == 0, 8, "the demand lapsed")
        assert link_report(a).up


async def test_loss_on_a_link_is_repaired() -> None:
    a, b, wire = Node("a"), Node("b"), LossyWire(lose_every=20)
    alice, bob = Publisher(a, "alice"), Subscriber(b, "bob")
    async with closing(alice, bob, a, b, wire):
        a_to_b, b_to_a = await wire.open(a.address, b.address)
        await alice.publish({"TR_v": Picture(100)})
        link(a, b, a_to_b=a_to_b, b_to_a=b_to_a)
        for section in alice.sections:
            remote_track(b, section)
        await bob.subscribe(alice.codecs)
        await until(lambda: len(bob.frames.get("video", [])) >= 20, 15, "first pictures")
        frames, begin, lost = len(bob.frames["video"]), time.monotonic(), wire.lost
        await until(lambda: len(bob.frames["video"]) >= frames + 100, 12, "100 more pictures")
        rate = 100 / (time.monotonic() - begin)
        assert wire.lost > lost + 3, "the wire did lose datagrams"
        assert rate > 20, f"{rate:.1f} pictures a second of 30"
        await until(lambda: link_report(a).loss > 0.01, 5, "the loss is in the report")


async def test_two_hops() -> None:
    a, b, c = Node("a"), Node("b"), Node("c")
    alice, bob = Publisher(a, "alice"), Subscriber(c, "bob")
    async with closing(alice, bob, a, b, c):
        await alice.publish({"TR_a": Tone(), "TR_v": Picture(200)})
        link(a, b, "RL_ab")
        link(b, c, "RL_bc")
        for section in alice.sections:
            remote_track(b, section, "RL_ab")
            remote_track(c, section, "RL_bc")
        await bob.subscribe(alice.codecs)
        await until(lambda: len(bob.frames.get("video", [])) >= 30, 15, "30 pictures over two hops")
        await until(lambda: len(bob.frames.get("audio", [])) >= 50, 5, "50 audio frames")
        assert link_report(b, "RL_ab").rx_tracks == link_report(b, "RL_bc").tx_tracks == 2


async def test_a_link_with_other_keys_stays_down_and_a_silent_one_goes_down() -> None:
    a, b = Node("a"), Node("b")
    async with closing(a):
        link(a, b)
        await until(lambda: any(e.relay.up for e in a.events), 5, "up")
        b.do(
            open_relay=node_pb2.OpenRelay(
                link_id="RL_1",
                peer_node_id="a",
                peer_address=a.address,
                tx_key=b"t" * 32,
                rx_key=b"r" * 32,
                link_token=77,
            )
        )
        await until(lambda: [e.relay.up for e in a.events][-1:] == [False], 8, "down after 3 s of silence")
        assert "3 s" in a.events[-1].relay.reason
        assert not link_report(b).up
        b.close()
