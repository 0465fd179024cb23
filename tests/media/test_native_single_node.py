"""One engine, real aiortc peers: media, data channels, and what the node tells about them."""

import asyncio
from typing import Any

from headwater_api.nodev1 import node_pb2
from support.deadline import until
from support.native_media import Node, Picture, Publisher, Subscriber, Tone, closing


async def test_video_and_audio_reach_a_late_subscriber() -> None:
    node = Node()
    publisher, subscriber = Publisher(node, "alice"), Subscriber(node, "bob")
    async with closing(publisher, subscriber, node):
        await publisher.publish({"TR_a": Tone(), "TR_v": Picture(200)})
        await node.connected("alice/pub")
        await until(lambda: node.live("TR_v") == [0], 5, "video live")
        await subscriber.subscribe(publisher.codecs)
        await node.connected("bob/sub")
        await until(lambda: len(subscriber.frames.get("video", [])) >= 30, 15, "30 pictures")
        await until(lambda: len(subscriber.frames.get("audio", [])) >= 50, 5, "50 audio frames")
        assert 150 < subscriber.brightness() < 215
        loudest = max(abs(f.to_ndarray()).max() for f in subscriber.frames["audio"][10:])
        assert loudest > 3000, "the tone is audible"
        connected = [e.transport for e in node.events if e.transport.transport_id == "alice/pub"][-1]
        assert connected.srtp_profile and connected.remote_address.startswith("127.0.0.1:")
        report = node.report()
        assert (report.connections, report.participants) == (2, 2)
        assert report.rooms[0].published_tracks == 2
        assert "srtp_auth" not in report.drops, dict(report.drops)


async def test_ipv6() -> None:
    node = Node(bind="[::1]:0")
    alice, bob = Publisher(node, "alice"), Subscriber(node, "bob")
    async with closing(alice, bob, node, addresses=("::1",)):
        await alice.publish({"TR_v": Picture(200)})
        await bob.subscribe(alice.codecs)
        await until(lambda: len(bob.frames.get("video", [])) >= 20, 15, "20 pictures")
        connected = [e.transport for e in node.events if e.transport.transport_id == "bob/sub"]
        assert connected[-1].remote_address.startswith("[::1]:")


async def test_data_channels_carry_messages_both_ways() -> None:
    node = Node()
    subscriber = Subscriber(node, "bob")
    got: list[str | bytes] = []
    channels: dict[str, Any] = {}

    @subscriber.pc.on("datachannel")
    def on_datachannel(channel: Any) -> None:
        channels[channel.label] = channel
        channel.on("message", got.append)

    async with closing(subscriber, node):
        wanted = [
            node_pb2.DataChannel(label="_reliable", ordered=True, max_retransmits=-1),
            node_pb2.DataChannel(label="_lossy", ordered=False, max_retransmits=0),
        ]
        await subscriber.subscribe({}, data_channels=wanted)
        await until(lambda: len(channels) == 2, 10, "both channels open")
        for label, payload, binary in [
            ("_reliable", b"hello", False),
            ("_lossy", b"\x00\x01", True),
            ("_reliable", b"x" * 60_000, True),
        ]:
            node.do(
                send_data=node_pb2.SendData(
                    transport_ids=["bob/sub"], label=label, payload=payload, binary=binary
                )
            )
        await until(lambda: len(got) == 3, 5, "three messages")
        assert sorted(got, key=len) == [b"\x00\x01", "hello", b"x" * 60_000]
        channels["_reliable"].send("up")
        channels["_reliable"].send(b"y" * 20_000)

        def data() -> list[node_pb2.DataEvent]:
            return [e.data for e in node.events if e.HasField("data")]

        await until(lambda: len(data()) == 2, 5, "two messages at the node")
        assert [(d.label, d.payload, d.binary) for d in data()] == [
            ("_reliable", b"up", False),
            ("_reliable", b"y" * 20_000, True),
        ]


async def test_client_opened_channels_are_accepted() -> None:
    node = Node()
    publisher = Publisher(node, "alice")
    async with closing(publisher, node):
        channel = publisher.pc.createDataChannel("_reliable")
        echoes: list[str | bytes] = []
        channel.on("message", echoes.append)
        await publisher.publish({"TR_a": Tone()})
        await until(lambda: channel.readyState == "open", 10, "the channel is open")
        channel.send("ping")
        await until(lambda: any(e.data.payload == b"ping" for e in node.events), 5, "ping at the node")
        started = asyncio.get_running_loop().time()
        node.do(send_data=node_pb2.SendData(transport_ids=["alice/pub"], label="_reliable", payload=b"pong"))
        await until(lambda: echoes == ["pong"], 5, "pong at the client", every_s=0.002)
        assert asyncio.get_running_loop().time() - started < 0.3, "one record per datagram"


async def test_closing_clients_and_rooms_are_told() -> None:
    node = Node()
    publisher, subscriber = Publisher(node, "alice"), Subscriber(node, "bob")
    async with closing(publisher, subscriber, node):
        await publisher.publish({"TR_v": Picture(60)})
        await node.connected("alice/pub")
        await subscriber.subscribe(publisher.codecs)
        await until(lambda: node.flowing("bob/sub", "TR_v") == 0, 10, "video flows")
        await publisher.pc.close()
        await until(
            lambda: node.last_state("alice/pub") == node_pb2.TRANSPORT_CLOSED, 5, "closed by the peer"
        )
        node.do(close_transport=node_pb2.CloseTransport(transport_id="alice/pub"))
        await until(
            lambda: any(e.track.track_id == "TR_v" and e.track.ended for e in node.events), 5, "track ended"
        )
        await until(lambda: node.flowing("bob/sub", "TR_v") == -1, 5, "nothing flows")
        node.do(close_room=node_pb2.CloseRoom())
        await until(lambda: any(e.HasField("room_closed") for e in node.events), 5, "room closed")
        assert node.report().rooms == []
