"""A room goes on when its gateway is gone: two gateways without HTTP over the same fake nodes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from headwater_api.ids import NodeId, ParticipantIdentity, ParticipantSid, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_gateway.room import actor, migration, moderation, snapshot
from headwater_gateway.room.ending import end_for_all
from headwater_gateway.room.keeper import EVERY_S
from headwater_gateway.room.model import Migration
from headwater_gateway.room.ports import JoinRefusal
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.succession import NodesSilent
from headwater_gateway.room.takeover import RETURN_S
from headwater_gateway.signal.session_runner import join_request
from headwater_gateway.signal.types import CLOSE_GOING_AWAY
from livekit.protocol import models, rtc
from support.deadline import until
from support.fake_channel import hello
from support.two_gateways import ROOM, World, publish, resume, sync_state, two_gateways


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with two_gateways() as made:
        yield made


async def test_a_client_resumes_at_another_gateway_without_a_change_of_its_media(world: World) -> None:
    first, second = world.gateways
    ann, bob = await first.join("ann", "eu"), await first.join("bob", "us")
    track = await publish(ann, "audio", "mic")
    await bob.wait("offer", 2)
    await until(lambda: any(c.sections for c in world.commands("us-1", "configure_send")), 15, "bob gets it")  # type: ignore[attr-defined]
    before = world.commands("us-1", "configure_send")[-1]
    created = [len(world.commands(node, "create_transport")) for node in world.nodes]
    await world.kept()
    room = await second.take_over()
    assert room is not None and room.keeper.claim.epoch > first.room().keeper.claim.epoch
    for node in world.nodes.values():
        await until(lambda n=node: n.held[ROOM].controller_id == "gw-b", 15, "adopted", 0.01)  # type: ignore[misc]
    # Who had it is refused, gives it up, and does not tell its clients to leave.
    key_frame = node_pb2.Command(request_key_frame=node_pb2.RequestKeyFrame(track_id=track))
    first.room().command(bob.sid, [key_frame])
    await until(lambda: bob.closed, 15, "bob's old connection is closed")
    assert bob.closed is not None and bob.closed[0] == CLOSE_GOING_AWAY and not bob.all("leave")
    await until(lambda: first.directory.room(ROOM) is None, 15, "the first gateway has no such room")

    back = await resume(second, bob, "bob")
    await until(
        lambda: any(c.sections for c in world.commands("us-1", "configure_send", "gw-b")), 15, "bob is served"
    )  # type: ignore[attr-defined]
    after = world.commands("us-1", "configure_send", "gw-b")[-1]
    assert after == before, "the same m-line, SSRC and payload type: media goes on"
    assert f"TR_{track[3:]}" in back.all("offer")[0].sdp
    assert not back.all("leave") and not back.all("join")
    restarts = world.commands("us-1", "restart_ice", "gw-b")
    assert [r.transport_id for r in restarts] == [f"{bob.sid}/sub"]  # type: ignore[attr-defined]
    await until(lambda: {"ann", "bob"} <= set(back.roster()), 15, "bob has the roster")
    assert [len(world.commands(node, "create_transport")) for node in world.nodes] == created
    for kind in ("close_transport", "close_room", "remove_remote_track", "close_relay", "open_relay"):
        told = [c for node in world.nodes for c in world.commands(node, kind, "gw-b")]
        assert told == [], f"{kind}: nothing had to change"


async def test_the_first_ice_restart_is_answered_after_the_clients_next_check(world: World) -> None:
    """Else a client of the Rust engine sees no connection come back, and waits three seconds."""
    first, second = world.gateways
    ann = await first.join("ann", "eu")
    await publish(ann, "audio", "mic")
    await world.kept()
    await second.take_over()
    back = await resume(second, ann, "ann")
    for ufrag, least_s in (("new1", 0.48), ("new2", 0.0)):
        answers, began = len(back.all("answer")), asyncio.get_running_loop().time()
        back.offer(("audio", "mic"), ufrag=ufrag)
        await until(lambda n=answers: len(back.all("answer")) > n, 15, "an answer", 0.01)  # type: ignore[misc]
        assert asyncio.get_running_loop().time() - began >= least_s
        restart = world.commands("eu-1", "restart_ice", "gw-b")[-1]
        assert f"a=ice-ufrag:{restart.local_ufrag}" in back.all("answer")[-1].sdp  # type: ignore[attr-defined]


async def test_what_was_published_after_the_last_snapshot_comes_back_with_its_client(world: World) -> None:
    first, second = world.gateways
    ann, bob = await first.join("ann", "eu"), await first.join("bob", "eu")
    await world.kept()
    world.nodes["eu-1"].held[ROOM].snapshot_version += 1_000_000  # no later snapshot is kept
    track = await publish(ann, "audio", "mic")
    room = await second.take_over()
    assert room is not None and not room.state.tracks
    back = second.connect("ann", resume=ann.sid)
    await back.wait("reconnect")
    published = ann.all("track_published")[0]
    sync = sync_state(ann)
    sync.publish_tracks.append(published)
    back.say(sync_state=sync)
    back.say(sync_state=sync)  # said twice, done once
    await back.wait("offer")
    back.offer(("audio", "mic"), ufrag="new1")
    await back.wait("answer")
    again = await resume(second, bob, "bob")
    await until(lambda: [t.sid for t in again.roster()["ann"].tracks] == [track], 15, "bob sees the track")
    thief = sync_state(bob)
    thief.publish_tracks.append(published)
    again.say(sync_state=thief)
    await until(lambda: list(room.state.tracks) == [track], 15, "nobody publishes under another's id")
    assert [t.publisher for t in room.state.tracks.values()] == [ann.sid]


async def test_lock_and_ban_are_kept_before_they_are_acknowledged(world: World) -> None:
    first, second = world.gateways
    await first.join("ann", "eu")
    await first.join("eve", "us")
    await first.room().ask(lambda state, now: moderation.remove(state, "eve", now, ban=True))
    # No wait here: the acknowledgement itself is the promise.
    room = await second.take_over()
    assert room is not None and ParticipantIdentity("eve") in room.state.access.banned
    with pytest.raises(JoinRefusal):
        second.directory.check(ROOM, join_request(hello("eve")))
    second.directory.check(ROOM, join_request(hello("bob")))


async def test_what_an_empty_room_was_told_outlives_its_gateways_shutdown(world: World) -> None:
    first, second = world.gateways
    room = first.directory.open(ROOM)
    await room.ask(lambda state, now: moderation.remove(state, "eve", now, ban=True))
    await first.directory.aclose(1.0)
    assert not [c for node in world.nodes for c in world.commands(node, "close_room")]
    room = await second.take_over()
    assert ParticipantIdentity("eve") in room.state.access.banned


async def test_a_node_that_keeps_nothing_makes_the_command_fail(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "STORED_DEADLINE_S", 0.3)
    first, _ = world.gateways
    await first.join("ann", "eu")
    await world.kept()

    def refuse(request: node_pb2.ApplyRequest) -> node_pb2.ApplyResponse:
        error = lambda c: "no" if c.HasField("put_snapshot") else ""  # noqa: E731
        return node_pb2.ApplyResponse(
            results=[node_pb2.CommandResult(error=error(c)) for c in request.commands]
        )

    world.nodes["eu-1"].respond = refuse
    with pytest.raises(TimeoutError):
        await first.room().ask(lambda state, now: moderation.remove(state, "eve", now, ban=True))


async def test_an_owner_that_has_lost_the_room_acknowledges_nothing(world: World) -> None:
    """It does not know it yet: it was frozen, say, and another gateway took the room over meanwhile."""
    first, second = world.gateways
    ann = await first.join("ann", "eu")
    track = await publish(ann, "audio", "mic")
    await first.join("bob", "eu")
    await world.kept()
    stale = first.room()
    taken = await second.take_over()
    await until(lambda: world.nodes["eu-1"].held[ROOM].controller_id == "gw-b", 15, "adopted", 0.01)
    commands: list[Callable[[RoomState, float], object]] = [
        lambda state, now: moderation.mute_track(state, "ann", track, True, now),
        lambda state, now: moderation.remove(state, "bob", now),
        lambda state, now: moderation.remove(state, "eve", now, ban=True),
        lambda state, _: moderation.set_lock(state, True),
    ]
    answers = await asyncio.gather(*(stale.ask(command) for command in commands), return_exceptions=True)
    assert [type(answer) for answer in answers] == [TimeoutError] * len(commands)
    with pytest.raises(JoinRefusal):
        await end_for_all(stale, "deleted by the API")
    await until(lambda: first.directory.room(ROOM) is None, 15, "the first gateway has no such room")
    for command in commands:
        await taken.ask(command)
    assert taken.state.access.banned == {"eve"} and taken.state.access.locked
    assert taken.state.of_identity("bob") is None


async def test_a_room_is_ended_only_by_who_has_it(world: World) -> None:
    first, second = world.gateways
    ann = await first.join("ann", "eu")
    await world.kept()
    stale = first.room()
    taken = await second.take_over()
    await until(lambda: world.nodes["eu-1"].held[ROOM].controller_id == "gw-b", 15, "adopted", 0.01)
    with pytest.raises(TimeoutError):
        await end_for_all(stale, "deleted by the API")
    assert not ann.all("leave") and not taken.state.ended
    await end_for_all(taken, "deleted by the API")
    await until(lambda: not world.nodes["eu-1"].held, 15, "its node has closed it", 0.01)


async def test_a_room_is_ended_though_its_node_does_not_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "STORED_DEADLINE_S", 0.05)
    first, _ = world.gateways
    ann = await first.join("ann", "eu")
    await world.kept()
    world.nodes["eu-1"].frozen = True
    await end_for_all(first.room(), "deleted by the API")
    await ann.wait("leave")
    world.nodes["eu-1"].frozen = False


async def test_a_command_that_nothing_keeps_before_the_room_is_handed_over_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "TURN_S", 60.0)  # both messages in one turn, however slow the machine
    first, _ = world.gateways
    await first.join("ann", "eu")
    await world.kept()
    room, node = first.room(), world.nodes["eu-1"]
    node.frozen = True
    ban = asyncio.ensure_future(room.ask(lambda state, now: moderation.remove(state, "eve", now, ban=True)))
    await asyncio.sleep(0)  # the command is in the mailbox
    room.hand_over("another gateway has the room", is_superseded=True)
    with pytest.raises(TimeoutError):
        await ban
    node.frozen = False


def _meanwhile(world: World, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[object]]) -> None:
    """Once the successor has read what the nodes hold, and before it has claimed the room."""
    pool, acted = world.gateways[1].directory.pool, []
    read = pool.rooms_held

    async def then_act(*args: Any, **options: Any) -> Any:
        held = await read(*args, **options)
        if not acted:
            acted.append(True)
            await act()
        return held

    monkeypatch.setattr(pool, "rooms_held", then_act)


def _once_claimed(world: World, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """As soon as the successor has claimed the room, and before it has it."""
    pool = world.gateways[1].directory.pool
    claim = pool.claim_room

    async def then_act(*args: Any, **options: Any) -> None:
        await claim(*args, **options)
        act()

    monkeypatch.setattr(pool, "claim_room", then_act)


async def test_what_the_old_owner_acknowledges_while_it_is_succeeded_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for dead and lives: a frozen process that goes on."""
    first, second = world.gateways
    ann = await first.join("ann", "eu")
    await first.join("eve", "us")
    await first.room().ask(lambda state, _: moderation.set_lock(state, True))
    await world.kept()

    async def decide() -> None:
        await first.room().ask(lambda state, now: moderation.remove(state, "eve", now, ban=True))
        await first.room().ask(lambda state, _: moderation.set_lock(state, False))

    _meanwhile(world, monkeypatch, decide)
    room = await second.take_over()
    assert room.state.access.banned == {"eve"} and room.state.of_identity("eve") is None
    assert not room.state.access.locked, "the newest word of one owner, not the stricter of two"
    back = await resume(second, ann, "ann")
    assert back.all("reconnect") and room.state.of_identity("ann") is not None
    with pytest.raises(TimeoutError):
        await first.room().ask(lambda state, _: moderation.set_lock(state, True))


async def test_what_a_node_says_to_its_new_owner_before_that_has_the_room_is_heard(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node tells the state of its transports, and the data that it has kept, to who claims the room."""
    first, second = world.gateways
    ann = await first.join("ann", "eu")
    await world.kept()

    def tell() -> None:
        event = node_pb2.Event(room_id=ROOM)
        event.transport.transport_id = f"{ann.sid}/sub"
        event.transport.state = node_pb2.TRANSPORT_CONNECTED
        second.directory.on_node_event(NodeId("eu-1"), event)

    _once_claimed(world, monkeypatch, tell)
    left = (await second.take_over()).state.participants[ParticipantSid(ann.sid)]
    await until(lambda: left.state == models.ParticipantInfo.ACTIVE, 15, "it is connected", 0.01)


async def test_of_two_that_take_a_room_at_once_the_lesser_one_lets_it_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other began a moment ago: this one has not heard it since it was killed, and takes it for dead."""
    first, second = world.gateways
    await first.join("ann", "eu")
    await world.kept()

    def overtake() -> None:
        world.nodes["eu-1"].held[ROOM].controller_id = "gw-z"

    _once_claimed(world, monkeypatch, overtake)
    taken = await second.succession.take_over(ROOM)
    assert isinstance(taken, snapshot.Claim) and taken.gateway == "gw-z"
    assert second.directory.room(ROOM) is None


async def test_who_resumes_where_the_room_has_just_left_is_not_made_to_join_anew(world: World) -> None:
    first, second = world.gateways
    ann = await first.join("ann", "eu")
    await world.kept()
    lost = await second.take_over()
    back = second.connect("ann", resume=ann.sid)
    await back.wait("reconnect")
    await until(lambda: first.directory.room(ROOM) is None, 15, "the first gateway has given it up")
    for node in world.nodes.values():
        node.interval_s = 60.0  # the second gateway hears from them only later who has it
    await first.take_over()
    lost.command(ParticipantSid(ann.sid), [node_pb2.Command(request_key_frame=node_pb2.RequestKeyFrame())])
    await until(lambda: lost.is_handed_over, 15, "the second gateway has given it up")
    back.say(sync_state=sync_state(ann))
    await until(lambda: back.closed, 15, "the connection is closed")
    assert back.closed is not None and back.closed[0] == CLOSE_GOING_AWAY and not back.all("leave")
    again = await resume(first, ann, "ann")
    assert not again.all("leave") and not again.all("join")


async def test_a_room_that_the_old_owner_ends_while_it_is_succeeded_stays_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.gateways
    await first.join("ann", "eu")
    await world.kept()

    async def end() -> None:
        first.room().end(models.DisconnectReason.ROOM_DELETED, "deleted by the API")
        await until(lambda: not world.nodes["eu-1"].held, 15, "its node has closed it", 0.01)

    _meanwhile(world, monkeypatch, end)
    assert await second.succession.take_over(ROOM) is None
    assert second.directory.room(ROOM) is None
    assert not any(node.held for node in world.nodes.values()), "nothing of it is left on a node"


async def test_a_room_whose_nodes_do_not_answer_is_not_begun_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.gateways
    await first.join("ann", "eu")
    await world.kept()
    pool = second.directory.pool
    await until(lambda: pool.room_reports(ROOM), 15, "the room is reported", 0.01)

    async def silence(*_: Any, **__: Any) -> dict[NodeId, node_pb2.RoomHeld | None]:
        return {}

    with monkeypatch.context() as faulty:
        faulty.setattr(pool, "rooms_held", silence)
        with pytest.raises(NodesSilent, match="eu-1"):
            await second.succession.take_over(ROOM)
    assert (await second.take_over()).state.of_identity("ann") is not None


async def test_a_process_that_stands_while_it_makes_a_snapshot_makes_the_next_one_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = snapshot.encode

    def stand(*args: Any) -> bytes:
        time.sleep(0.2)  # without the processor: it is not the room's size that takes so long
        return encode(*args)

    monkeypatch.setattr(snapshot, "encode", stand)
    first, _ = world.gateways
    await first.join("ann", "eu")
    await world.kept()
    assert first.room().keeper._not_before - time.monotonic() <= EVERY_S


async def test_many_clients_at_once_share_one_takeover(world: World) -> None:
    first, second = world.gateways
    people = [await first.join(f"p{n}", "eu") for n in range(5)]
    await world.kept()
    rooms = await asyncio.gather(*(second.succession.take_over(ROOM) for _ in range(20)))
    assert len(set(map(id, rooms))) == 1 and second.succession.taken_total == 1
    backs = await asyncio.gather(*(resume(second, p, f"p{n}") for n, p in enumerate(people)))
    assert all(not b.all("leave") for b in backs)


async def test_a_participant_whose_node_died_too_is_told_to_reconnect(world: World) -> None:
    first, second = world.gateways
    await first.join("ann", "eu")
    bob = await first.join("bob", "us")
    await world.kept()
    world.nodes["us-1"].held.pop(ROOM)  # as after a restart of the node
    room = await second.take_over()
    assert room is not None
    back = second.connect("bob", resume=bob.sid)
    leave = await back.wait("leave")
    assert leave.action == rtc.LeaveRequest.RECONNECT
    again = await second.join("bob", "us")
    await until(lambda: again.roster().keys() >= {"ann"}, 15, "bob is in the same room")
    assert room.state.by_identity[ParticipantIdentity("bob")] == again.sid


async def test_who_was_on_its_way_to_another_node_has_as_long_to_come_back_as_others(world: World) -> None:
    first, second = world.gateways
    ann = await first.join("ann", "eu")
    now = time.monotonic()

    def begin(state: RoomState, _: float) -> None:
        state.participants[ParticipantSid(ann.sid)].migration = Migration(None, now - 5, "", back_at=now - 5)

    await first.room().ask(begin)
    room = first.room()
    room.keeper.touch(now)
    await world.kept()
    moved = (await second.take_over()).state.participants[ParticipantSid(ann.sid)]
    assert not migration.overdue(moved, time.monotonic() + RETURN_S - 1)
    assert migration.overdue(moved, time.monotonic() + RETURN_S + migration.RETURN_S)


async def test_rows_of_a_room_taken_over_are_newer_than_what_clients_have(world: World) -> None:
    first, second = world.gateways
    ann, _ = await first.join("ann", "eu"), await first.join("bob", "us")
    await world.kept()
    await until(lambda: "bob" in ann.roster(), 15, "ann sees bob")
    had = ann.roster()["bob"].version
    await second.take_over()
    back = await resume(second, ann, "ann")
    await until(lambda: "bob" in back.roster(), 15, "the roster")
    assert back.roster()["bob"].version > had


async def test_nothing_left_is_no_room(world: World) -> None:
    assert await world.gateways[1].succession.take_over(RoomId("never-was")) is None


async def test_those_who_do_not_come_back_are_taken_off_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater_gateway.room.takeover.RETURN_S", -9.5)
    first, second = world.gateways
    await first.join("ann", "eu")
    await world.kept()
    room = await second.take_over()
    assert room is not None
    await until(lambda: not room.state.participants, 15, "the roster is empty")
    await until(lambda: world.commands("eu-1", "close_transport", "gw-b"), 15, "its node is told")


async def test_whose_node_dies_before_they_are_back_join_anew_at_once(world: World) -> None:
    first, second = world.gateways
    await first.join("ann", "eu")
    bob = await first.join("bob", "us")
    await world.kept()
    room = await second.take_over()
    room.node_lost(NodeId("us-1"), "killed")
    await until(lambda: NodeId("us-1") not in room.state.nodes, 15, "the node is given up")
    leave = await second.connect("bob", resume=bob.sid).wait("leave")
    assert leave.action == rtc.LeaveRequest.RECONNECT, "no session is there to prepare its new transports"


async def test_who_is_back_can_be_led_elsewhere_again(world: World) -> None:
    first, second = world.gateways
    ann = await first.join("ann", "eu")
    await world.kept()
    room = await second.take_over()
    state = room.state.participants[ParticipantSid(ann.sid)]
    assert not migration.can_migrate(state)
    await resume(second, ann, "ann")
    assert migration.can_migrate(state)
