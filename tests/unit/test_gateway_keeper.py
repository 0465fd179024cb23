"""When a room's snapshot is made, and who is told that it is kept."""

import pytest
from headwater_api.ids import GatewayId, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_gateway.room import effects
from headwater_gateway.room.keeper import EVERY_S, FIRST_S, SHARE, SnapshotKeeper, matters
from headwater_gateway.room.model import RoomConfig
from headwater_gateway.room.snapshot import Claim
from headwater_gateway.room.state import RoomState
from livekit.protocol import rtc
from support.counting_ids import CountingIds


def keeper() -> SnapshotKeeper:
    return SnapshotKeeper(Claim(1, GatewayId("gw")), version=7)


def room() -> RoomState:
    return RoomState(RoomId("r"), "RM_1", RoomConfig(), 1, 1.0, CountingIds())


def test_changes_are_collected_and_at_most_one_snapshot_a_second_is_made() -> None:
    made, state = keeper(), room()
    made.touch(100.0)
    made.touch(100.01)
    assert made.due == pytest.approx(100.0 + FIRST_S)
    put = made.make(state, 100.02)
    assert put is not None and put.version == 8 and made.due is None
    made.touch(100.1)
    assert made.due == pytest.approx(100.02 + EVERY_S)
    made.make(state, 101.1)
    made.spent(0.2)
    made.touch(101.2)
    assert made.due == pytest.approx(101.1 + 0.2 / SHARE), "a large room is not encoded all the time"


async def test_what_must_not_be_lost_is_due_at_once_and_done_when_it_is_kept() -> None:
    made, state = keeper(), room()
    made.make(state, 100.0)
    first = made.urge(100.1)
    assert made.due == 100.1
    put = made.make(state, 100.1)
    assert put is not None
    made.stored(put.version - 1)
    assert not first.done(), "an older snapshot does not have the change"
    made.stored(put.version)
    assert first.done()
    second = made.urge(100.2)
    made.close()
    with pytest.raises(TimeoutError):
        await second


def test_what_passes_by_itself_makes_no_snapshot() -> None:
    data = node_pb2.Command(send_data=node_pb2.SendData(label="x"))
    close = node_pb2.Command(close_room=node_pb2.CloseRoom())
    speakers = rtc.SignalResponse(speakers_changed=rtc.SpeakersChanged())
    update = rtc.SignalResponse(update=rtc.ParticipantUpdate())
    assert not matters(effects.ToNode("n", (data,)))  # type: ignore[arg-type]
    assert matters(effects.ToNode("n", (data, close)))  # type: ignore[arg-type]
    assert not matters(effects.ToClients((), speakers)) and matters(effects.ToClients((), update))
