"""A Meeting's rules where clients meet them: joins at both gateways, resumes, rejoins; hosts' commands."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from headwater_api.ids import ParticipantIdentity, RoomId
from headwater_gateway.passwords import PASSWORD, fingerprint, hash_password
from headwater_gateway.room import moderation
from headwater_gateway.room.model import RoomConfig
from livekit.protocol import models, rtc
from support.deadline import until
from support.gateways import Gateways, SignalClient, running_gateways

ROOM = RoomId("demo")
HOST = {"claims": {"video": {"roomAdmin": True}}}


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateways]:
    async with running_gateways(tmp_path, monkeypatch, 2) as gateways:
        yield gateways


def _declare(pair: Gateways, config: RoomConfig) -> None:
    for plane in pair.planes:
        plane.directory.meeting_seen(ROOM, replace(config, is_declared=True))


async def _refusal(url: str, identity: str, **query: object) -> tuple[int, str]:
    """Status and reason of a refused join, by validate too."""
    client = SignalClient(url, identity, **query)  # type: ignore[arg-type]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with client:
            pass
    validate = client.url.replace("/rtc?", "/rtc/validate?")
    headers = {"Authorization": f"Bearer {client.token}"}
    async with aiohttp.ClientSession() as http, http.get(validate, headers=headers) as answer:
        assert answer.status == refused.value.status
        return answer.status, answer.headers["X-Headwater-Reason"]


async def test_the_password_is_asked_for_at_every_gateway(pair: Gateways) -> None:
    hashed = await hash_password("open sesame")
    for plane in pair.planes:
        plane.passwords.set(ROOM, PASSWORD, hashed)
    _declare(pair, RoomConfig(password=fingerprint(hashed)))
    for who, url in zip(("bob", "ben"), pair.urls, strict=True):
        assert await _refusal(url, who) == (403, "PasswordRequired")
        assert await _refusal(url, who, password="wrong") == (403, "PasswordRequired")
        async with (
            SignalClient(url, who, password="open%20sesame") as bob,
            SignalClient(url, who, reconnect="1", sid=bob.me.sid, first="reconnect") as again,
        ):
            assert again.received[0].HasField("reconnect"), "a resume is not asked again"
    claims = {"headwater": {"password": fingerprint(hashed)}}
    async with SignalClient(pair.urls[0], "carl", claims=claims):
        pass
    assert await _refusal(pair.urls[0], "dan", claims={"headwater": {"password": "0" * 16}}) == (
        403,
        "PasswordRequired",
    )


async def test_guesses_are_limited(pair: Gateways) -> None:
    hashed = await hash_password("open sesame")
    owner = pair.owner(ROOM)
    pair.planes[owner].passwords.set(ROOM, PASSWORD, hashed)
    _declare(pair, RoomConfig(password=fingerprint(hashed)))
    statuses = set()
    for n in range(20):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with SignalClient(pair.urls[owner], "bob", password=f"guess-{n}"):
                pass
        statuses.add(refused.value.status)
        if 429 in statuses:
            break
    assert 429 in statuses


async def test_the_waiting_room_tells_hosts_who_knocks_and_strangers_nothing(pair: Gateways) -> None:
    _declare(pair, RoomConfig(waiting_room=True))
    async with SignalClient(pair.urls[0], "ann", **HOST):
        for url in pair.urls:
            status, reason = await _refusal(url, "bob")
            assert (status, reason) == (403, "InWaitingRoom")
        actor = pair.planes[pair.owner(ROOM)].directory.room(ROOM)
        assert actor is not None
        await until(lambda: list(actor.state.access.waiting) == ["bob"], 15, "bob waits")
        lobby = await until(lambda: _lobby_packets(pair), 15, "the host is told")
        assert len(lobby) == 1 and b'"identity": "bob"' in lobby[0].user.payload
        await actor.ask(lambda s, _: moderation.admit(s, [ParticipantIdentity("bob")], let_in=True))
        async with SignalClient(pair.urls[1], "bob"):
            pass
        assert await _refusal(pair.urls[1], "eve") == (403, "InWaitingRoom")
        await actor.ask(lambda s, _: moderation.admit(s, [ParticipantIdentity("eve")], let_in=False))
        assert await _refusal(pair.urls[1], "eve") == (403, "AdmissionDenied")


def _lobby_packets(pair: Gateways) -> list[models.DataPacket]:
    found = []
    for node in pair.nodes:
        for request in node.applied:
            for command in request.commands:
                if command.HasField("send_data"):
                    packet = models.DataPacket.FromString(command.send_data.payload)
                    if packet.user.topic == "headwater.lobby":
                        found.append(packet)
    return found


async def test_a_ban_holds_for_joins_resumes_and_rejoins(pair: Gateways) -> None:
    async with SignalClient(pair.urls[0], "ann", **HOST), SignalClient(pair.urls[0], "bob") as bob:
        actor = pair.planes[pair.owner(ROOM)].directory.room(ROOM)
        assert actor is not None
        await actor.ask(lambda s, now: moderation.remove(s, "bob", now, ban=True))
        assert (await bob.wait("leave")).action == rtc.LeaveRequest.DISCONNECT
        async with SignalClient(pair.urls[0], "bob", reconnect="1", sid=bob.me.sid, first="leave") as resumed:
            assert resumed.received[0].leave.action == rtc.LeaveRequest.RECONNECT
        for url in pair.urls:
            assert await _refusal(url, "bob") == (403, "Banned")


async def test_a_lock_lets_those_back_who_were_in(pair: Gateways) -> None:
    async with SignalClient(pair.urls[0], "ann", **HOST), SignalClient(pair.urls[0], "bob"):
        actor = pair.planes[pair.owner(ROOM)].directory.room(ROOM)
        assert actor is not None
        await actor.ask(lambda s, _: moderation.set_lock(s, True))
        assert await _refusal(pair.urls[1], "carl") == (403, "RoomLocked")
        async with SignalClient(pair.urls[1], "bob"):
            pass


async def test_mute_all_spares_hosts_and_an_unmute_is_the_owners(pair: Gateways) -> None:
    async with (
        SignalClient(pair.urls[0], "ann", **HOST) as ann,
        SignalClient(pair.urls[0], "bob") as bob,
        SignalClient(pair.urls[1], "carl"),
    ):
        mine, his = await ann.publish("audio", "a"), await bob.publish("audio", "b")
        actor = pair.planes[pair.owner(ROOM)].directory.room(ROOM)
        assert actor is not None
        wanted = actor.state.of_identity("carl").wanted  # type: ignore[union-attr]
        await until(lambda: len(wanted) == 2, 15, "carl gets both")
        assert await actor.ask(moderation.mute_all) == 1
        assert (await bob.wait("mute")).sid == his.sid
        assert (wanted[his.sid].paused, wanted[mine.sid].paused) == (True, False)
        await bob.say(mute=rtc.MuteTrackRequest(sid=his.sid, muted=False))
        await until(lambda: not wanted[his.sid].paused, 15, "bob is heard again")


async def test_encryption_may_be_required(pair: Gateways) -> None:
    _declare(pair, RoomConfig(e2ee_required=True))
    async with SignalClient(pair.urls[0], "ann") as ann:
        await ann.say(add_track=rtc.AddTrackRequest(cid="a", type=models.TrackType.AUDIO))
        assert "end-to-end encryption" in (await ann.wait("request_response")).message
        await ann.say(
            add_track=rtc.AddTrackRequest(
                cid="a", type=models.TrackType.AUDIO, encryption=models.Encryption.GCM
            )
        )
        await ann.wait("track_published")
