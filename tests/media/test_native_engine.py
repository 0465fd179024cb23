"""The native module's contract: what it refuses, how it says so, and that a flood leaves a call alone."""

import asyncio
import secrets
import socket

import pytest
from headwater_api.nodev1 import node_pb2
from headwater_sfu._native import Engine, EngineError, StaleEpoch
from support.deadline import until
from support.native_media import LOOPBACK, Node, Picture, Publisher, Subscriber, closing


def make(bind: str = f"{LOOPBACK}:0") -> Engine:
    return Engine(bind=[bind], advertise=None, node_id="n", region="eu", max_connections=4)


@pytest.mark.parametrize("bind", ["localhost:1", "127.0.0.1", "", "127.0.0.1:99999"])
def test_an_unreadable_address_is_named(bind: str) -> None:
    with pytest.raises(ValueError, match=r"bind: .*ip:port"):
        make(bind)


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])
def test_any_address_is_refused_because_ice_would_fail(bind: str) -> None:
    with pytest.raises(EngineError, match="not one address"):
        make(bind)


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((LOOPBACK, 0))
        address = "{}:{}".format(*taken.getsockname())
        with pytest.raises(EngineError, match=rf"bind: {address}: .*in use"):
            make(address)


def test_both_families_and_advertised_addresses() -> None:
    engine = Engine(
        bind=[f"{LOOPBACK}:0", "[::1]:0"],
        advertise=["192.0.2.7:7882"],
        node_id="n",
        region="eu",
        max_connections=4,
    )
    info = node_pb2.NodeInfo.FromString(engine.info())
    assert info.media_addresses == ["192.0.2.7:7882"]
    assert (info.node_id, info.region, info.max_connections) == ("n", "eu", 4)
    assert info.incarnation != node_pb2.NodeInfo.FromString(make().info()).incarnation
    engine.close()


def test_closed_twice_and_used_after() -> None:
    engine = make()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.report()


def test_junk_is_a_value_error_and_an_old_epoch_its_own() -> None:
    engine = make()
    with pytest.raises(ValueError, match="ApplyRequest"):
        engine.apply(b"\xff\xff\xff")
    with pytest.raises(ValueError, match="room_id"):
        engine.apply(node_pb2.ApplyRequest(epoch=1).SerializeToString())
    engine.apply(node_pb2.ApplyRequest(room_id="r", epoch=5).SerializeToString())
    with pytest.raises(StaleEpoch, match="5"):
        engine.apply(node_pb2.ApplyRequest(room_id="r", epoch=4).SerializeToString())
    engine.close()


async def test_each_bad_command_names_its_field_and_the_rest_goes_on() -> None:
    node = Node()
    create = node_pb2.CreateTransport(
        transport_id="t", participant_id="p", local_ufrag="abcd", local_pwd="x" * 24
    )
    codec = node_pb2.CodecMap(payload_type=200, codec=node_pb2.CODEC_VP8, clock_rate=90000)
    section = node_pb2.ReceiveSection(mid="0", kind=node_pb2.KIND_VIDEO, codecs=[codec])
    relay = node_pb2.OpenRelay(link_id="l", peer_address="nowhere", tx_key=b"k" * 32, rx_key=b"k" * 32)
    bad = {
        "payload_type": node_pb2.Command(
            configure_receive=node_pb2.ConfigureReceive(transport_id="t", sections=[section])
        ),
        "peer_address": node_pb2.Command(open_relay=relay),
        "local_pwd": node_pb2.Command(
            create_transport=node_pb2.CreateTransport(transport_id="u", local_ufrag="efgh", local_pwd="x")
        ),
        "remote_fingerprint": node_pb2.Command(
            set_remote=node_pb2.SetRemote(transport_id="t", remote_fingerprint="sha-1 AB:CD")
        ),
        "transport_id": node_pb2.Command(configure_send=node_pb2.ConfigureSend(transport_id="nobody")),
        "link_id": node_pb2.Command(
            add_remote_track=node_pb2.AddRemoteTrack(track_id="T", kind=node_pb2.KIND_AUDIO, link_id="none")
        ),
        "not known": node_pb2.Command(),
    }
    async with closing(node):
        results = node.apply(node_pb2.Command(create_transport=create), *bad.values())
        assert results[0] == ""
        for field, error in zip(bad, results[1:], strict=True):
            assert field in error, (field, error)


async def test_draining_refuses_newcomers_and_says_so_in_the_report() -> None:
    node = Node()
    async with closing(node):
        node.engine.set_draining(True)
        assert node.report().draining
        create = node_pb2.CreateTransport(transport_id="t", local_ufrag="abcd", local_pwd="x" * 24)
        assert "draining" in node.apply(node_pb2.Command(create_transport=create))[0]
        node.engine.set_draining(False)
        assert node.apply(node_pb2.Command(create_transport=create)) == [""]


async def test_resync_tells_the_present_state() -> None:
    node = Node()
    alice, bob = Publisher(node, "alice"), Subscriber(node, "bob")
    async with closing(alice, bob, node):
        await alice.publish({"TR_v": Picture(90)})
        await bob.subscribe(alice.codecs)
        await until(lambda: node.flowing("bob/sub", "TR_v") == 0, 10, "video flows")
        node.events.clear()
        node.engine.resync("somebody else")
        node.engine.resync("test")
        await until(lambda: node.flowing("bob/sub", "TR_v") == 0, 2, "the subscription again")
        assert node.last_state("alice/pub") == node_pb2.TRANSPORT_CONNECTED
        assert node.last_state("bob/sub") == node_pb2.TRANSPORT_CONNECTED
        assert node.live("TR_v") == [0]


async def test_a_flood_of_garbage_leaves_a_call_alone() -> None:
    node = Node()
    alice, bob = Publisher(node, "alice"), Subscriber(node, "bob")
    async with closing(alice, bob, node):
        await alice.publish({"TR_v": Picture(200)})
        await bob.subscribe(alice.codecs)
        await until(lambda: len(bob.frames.get("video", [])) >= 10, 15, "pictures")
        host, _, port = node.address.rpartition(":")
        heads = [
            b"\x00\x01\x00\x00\x21\x12\xa4\x42",
            b"\x16\xfe\xfd",
            b"\x80\x60",
            b"\x81\xc9",
            b"\x61",
            b"\xff",
        ]
        before = len(bob.frames["video"])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            flood.setblocking(False)
            for i in range(20_000):
                try:
                    flood.sendto(heads[i % len(heads)] + secrets.token_bytes(i % 1800), (host, int(port)))
                except BlockingIOError:
                    await asyncio.sleep(0)
                if i % 200 == 0:
                    await asyncio.sleep(0)
        await until(lambda: len(bob.frames["video"]) >= before + 30, 10, "pictures go on")
        drops = node.report().drops
        assert drops["unknown_path"] > 1000
        assert drops["unknown_kind"] > 1000
        assert "panic" not in drops
