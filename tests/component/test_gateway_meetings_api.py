"""/v1/meetings over two gateways: what people do by REST, and what their clients see of it."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headwater_api.ids import RoomId
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models, rtc
from support.deadline import until
from support.gateway_edge import token
from support.gateways import Gateways, SignalClient, running_gateways

BACKEND = {"sub": None, "video": {"roomCreate": True, "roomList": True}}


@dataclass
class Rest:
    """A caller; `claims` make its token."""

    url: str
    http: aiohttp.ClientSession
    claims: dict[str, Any] = field(default_factory=dict)
    bearer: str = ""

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.bearer or token(**self.claims)}"}
        async with self.http.request(method, self.url + path, json=body, headers=headers) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else text

    def bearing(self, bearer: str) -> "Rest":
        return Rest(self.url, self.http, bearer=bearer)


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateways]:
    async with running_gateways(tmp_path, monkeypatch, 2) as gateways:
        yield gateways


@pytest.fixture
async def backend(pair: Gateways) -> AsyncIterator[Rest]:
    async with aiohttp.ClientSession() as http:
        yield Rest(pair.urls[0], http, BACKEND)


async def _create(backend: Rest, **more: Any) -> dict[str, Any]:
    status, made = await backend("POST", "/v1/meetings", {"host_id": "ann", **more})
    assert status == 201, made
    return made  # type: ignore[no-any-return]


async def _join(caller: Rest, meeting: dict[str, Any], user: str, **more: Any) -> tuple[int, Any]:
    body = {"user_id": user, "password": meeting["password"], **more}
    return await caller("POST", f"/v1/meetings/{meeting['meeting_id']}/join", body)


def _client(joined: dict[str, Any]) -> SignalClient:
    client = SignalClient(joined["signaling_server_url"].replace("ws", "http"), joined["participant_id"])
    client.token = joined["token"]
    return client


async def test_a_meeting_is_created_found_joined_and_deleted(pair: Gateways, backend: Rest) -> None:
    start = datetime.now(UTC) + timedelta(minutes=3)
    made = await _create(
        backend,
        title="Stand-up, daily",
        scheduled_time=start.isoformat(),
        duration=30,
        settings={"max_participants": 5, "regions": ["eu"]},
    )
    name = made["meeting_id"]
    assert len(made["host_key"]) > 20 and len(made["password"]) == 10
    assert pair.writer is not None
    spec = pair.writer.bodies[name]["spec"]
    assert spec["access"]["hosts"] == ["ann"] and spec["schedule"]["duration"] == "30m"
    assert made["password"] not in str(spec) and made["host_key"] not in str(spec)

    far = Rest(pair.urls[1], backend.http, BACKEND)
    status, found = await far("GET", f"/v1/meetings/{name}")
    assert (status, found["title"], found["duration"]) == (200, "Stand-up, daily", 30)
    status, listed = await far("GET", "/v1/meetings?limit=10")
    assert [m["meeting_id"] for m in listed["meetings"]] == [name]

    status, joined = await _join(far, made, "ann")
    assert (status, joined["role"]) == (200, "host"), joined
    async with _client(joined) as ann:
        assert ann.me.attributes["headwater.role"] == "host"
        assert ann.me.attributes["headwater.region"] == "eu"
        status, bob = await _join(backend, made, "bob")
        assert (status, bob["role"]) == (200, "participant")
        assert [p["participant_id"] for p in bob["meeting_state"]["participants"]] == ["ann"]
        assert (await _join(backend, made, "bob", password="wrong"))[0] == 403

        status, calendar = await far("GET", f"/v1/meetings/{name}/invite.ics")
        assert status == 200
        assert "SUMMARY:Stand-up\\, daily\r\n" in calendar and "BEGIN:VEVENT\r\n" in calendar

        status, _ = await backend.bearing(joined["token"])("DELETE", f"/v1/meetings/{name}")
        assert status == 200
        assert (await ann.wait("leave")).reason == models.DisconnectReason.ROOM_DELETED
    assert (await _join(backend, made, "bob"))[0] == 404
    with pytest.raises(aiohttp.WSServerHandshakeError) as late:
        async with _client(bob):
            pass
    assert late.value.status == 403, "its token is good for that Meeting only, not for a room of its name"


async def test_who_may_not(pair: Gateways, backend: Rest) -> None:
    stranger = Rest(pair.urls[0], backend.http, {"sub": "eve", "video": {"roomJoin": True}})
    made = await _create(backend)
    name = made["meeting_id"]
    assert (await stranger("POST", "/v1/meetings", {"host_id": "eve"}))[0] == 403
    assert (await stranger("GET", "/v1/meetings"))[0] == 403
    for path in ("", "/participants", "/waiting", "/chat"):
        assert (await stranger("GET", f"/v1/meetings/{name}{path}"))[0] == 403, path
    assert (await _join(stranger, made, "ann"))[0] == 403, "somebody else's name"
    status, mine = await _join(stranger, made, "eve")
    assert (status, mine["role"]) == (200, "participant")
    async with _client(mine):
        caller = backend.bearing(mine["token"])
        for method, path, body in (
            ("PUT", "/lock", {"locked": True}),
            ("POST", "/mute", {}),
            ("POST", "/end", None),
            ("DELETE", "", None),
            ("PUT", "/participants/ann/role", {"role": "co-host"}),
            ("POST", "/leave", {"participant_id": "ann"}),
            ("POST", "/chat", {"sender_id": "ann", "message": "I am Ann"}),
        ):
            status, answer = await caller(method, f"/v1/meetings/{name}{path}", body)
            assert status == 403, (method, path, answer)
    async with backend.http.get(f"{pair.urls[0]}/v1/meetings/{name}") as answer:
        assert answer.status == 401


async def test_waiting_lock_and_removal_by_rest(pair: Gateways, backend: Rest) -> None:
    made = await _create(backend, settings={"waiting_room": True})
    name = f"/v1/meetings/{made['meeting_id']}"
    _, host = await _join(backend, made, "ann")
    caller = backend.bearing(host["token"])
    async with _client(host):
        status, waits = await _join(backend, made, "bob", name="Bob")
        assert (status, set(waits)) == (202, {"status", "participant_id", "retry_after"})
        status, listed = await caller("GET", name + "/waiting")
        assert [(w["participant_id"], w["name"]) for w in listed["waiting"]] == [("bob", "Bob")]
        assert (await caller("PUT", name + "/waiting/bob", {"admit": True}))[0] == 200
        status, bob = await _join(backend, made, "bob")
        assert status == 200
        async with _client(bob) as there:
            assert (await caller("PUT", name + "/lock", {"locked": True}))[0] == 200
            assert (await _join(backend, made, "carl"))[0] == 423
            assert (await caller("PUT", name + "/lock", {"locked": False}))[0] == 200
            assert (await caller("DELETE", name + "/participants/bob?ban=1"))[0] == 200
            await there.wait("leave")
        assert (await _join(backend, made, "bob"))[0] == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with _client(bob):
                pass


async def test_who_was_removed_sees_the_meeting_at_no_gateway(pair: Gateways, backend: Rest) -> None:
    start = datetime.now(UTC) + timedelta(minutes=3)
    made = await _create(backend, password="", scheduled_time=start.isoformat())
    name = made["meeting_id"]
    bob = (await _join(backend, made, "bob", host_key=made["host_key"]))[1]
    async with _client(bob):
        for url in pair.urls:
            caller = Rest(url, backend.http, bearer=bob["token"])
            for path in ("", "/invite.ics"):
                assert (await caller("GET", f"/v1/meetings/{name}{path}"))[0] == 200
        assert (await backend("DELETE", f"/v1/meetings/{name}/participants/bob?ban=1"))[0] == 200
        for url in pair.urls:
            caller = Rest(url, backend.http, bearer=bob["token"])
            for path in ("", "/invite.ics"):
                assert (await caller("GET", f"/v1/meetings/{name}{path}"))[0] == 403, (url, path)


async def test_joining_gives_no_more_than_the_callers_token_does(pair: Gateways, backend: Rest) -> None:
    made = await _create(backend, password="")
    video = {"roomJoin": True, "canPublish": False, "canSubscribe": False}
    bob = Rest(pair.urls[0], backend.http, {"sub": "bob", "video": video})
    async with _client((await _join(bob, made, "bob"))[1]) as there:
        allowed = there.me.permission
        assert (allowed.can_publish, allowed.can_subscribe, allowed.can_publish_data) == (False,) * 3


async def test_what_a_client_says_of_its_device_is_seen_by_all(pair: Gateways, backend: Rest) -> None:
    made = await _create(backend)
    facts = {"type": "phone", "max_resolution": "1280x720"}
    ann = (await _join(backend, made, "ann", device_info=facts))[1]
    bob = (await _join(backend, made, "bob"))[1]
    assert (await _join(backend, made, "cyd", device_info={"headwater.role": "host"}))[0] == 400
    async with _client(ann), _client(bob) as there:
        joined = next(m.join for m in there.received if m.HasField("join"))
        (seen,) = joined.other_participants
        told = {key: value for key, value in seen.attributes.items() if key.startswith("device.")}
        assert told == {f"device.{key}": value for key, value in facts.items()}


async def test_a_revoked_token_is_not_exchanged_for_a_new_one(pair: Gateways, backend: Rest) -> None:
    made = await _create(backend, password="")
    name, now = made["meeting_id"], int(time.time())
    video = {"roomJoin": True, "room": name}
    bob = Rest(pair.urls[0], backend.http, {"sub": "bob", "nbf": now - 100, "video": video})
    early = (await _join(bob, made, "bob"))[1]
    actor = pair.planes[pair.owner(name)].directory.open(RoomId(name))
    await actor.ask(lambda state, _: state.access.revoked.update(bob=now - 50))
    for caller in (bob, bob.bearing(early["token"])):
        status, answer = await _join(caller, made, "bob")
        assert (status, answer["error"]["reason"]) == (401, "TokenRevoked")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with _client(early):
            pass
    assert refused.value.status == 401
    newer = Rest(pair.urls[0], backend.http, {"sub": "bob", "nbf": now - 10, "video": video})
    assert (await _join(newer, made, "bob"))[0] == 200
    assert (await _join(backend, made, "bob"))[0] == 200, "an application vouches for its users anew"


async def test_who_is_host_no_more_moderates_no_more(pair: Gateways, backend: Rest) -> None:
    made = await _create(backend, password="")
    name = made["meeting_id"]
    path = f"/v1/meetings/{name}"
    hosts = {who: (await _join(backend, made, who, host_key=made["host_key"]))[1] for who in ("bob", "carl")}
    async with _client(hosts["bob"]), _client(hosts["carl"]):
        assert (await backend("PUT", path + "/participants/bob/role", {"role": "participant"}))[0] == 200
        assert (await backend("DELETE", path + "/participants/carl?ban=1"))[0] == 200
        assert (await backend("POST", path + "/leave", {"participant_id": "bob"}))[0] == 200
    actor = pair.planes[pair.owner(name)].directory.room(RoomId(name))
    assert actor is not None and not actor.state.participants
    twirp = "/twirp/livekit.RoomService/UpdateRoomMetadata"
    for url in pair.urls:
        for who, joined in hosts.items():
            caller = Rest(url, backend.http, bearer=joined["token"])
            assert (await caller("PUT", path + "/lock", {"locked": True}))[0] == 403, who
            assert (await caller("POST", twirp, {"room": name, "metadata": "mine"}))[0] == 401, who
            assert (await caller("DELETE", path))[0] == 403, who
    ann = (await _join(backend, made, "ann"))[1]
    far = Rest(pair.urls[1 - pair.owner(name)], backend.http, bearer=ann["token"])
    assert (await far("POST", twirp, {"room": name, "metadata": "hers"}))[0] == 200
    assert (await far("DELETE", path))[0] == 200


async def test_the_host_key_makes_a_host_and_the_link_a_guest(pair: Gateways, backend: Rest) -> None:
    made = await _create(backend, settings={"join_before_host": False}, password="")
    assert made["password"] == ""
    link = backend.bearing(made["join_url"].partition("#join=")[2])
    secret = "a-random-string-of-the-guest"
    status, guest = await _join(link, made, secret, name="Gast")
    assert (status, guest["status"]) == (202, "waiting"), "before the host"
    status, boss = await _join(backend, made, "zoe", host_key=made["host_key"])
    assert (status, boss["role"]) == (200, "host")
    async with _client(boss):
        status, guest = await _join(link, made, secret, name="Gast")
        assert (status, guest["role"]) == (200, "guest")
        assert secret not in guest["participant_id"]
        async with _client(guest) as there:
            assert there.me.name == "Gast"
    assert (await _join(backend, made, "yan", host_key="guess"))[1]["role"] == "participant"
    assert (await link("GET", f"/v1/meetings/{made['meeting_id']}"))[0] == 401, "good for joining only"
    other = await _create(backend, password="")
    assert (await _join(link, other, secret))[0] == 403


async def test_media_state_and_chat(pair: Gateways, backend: Rest) -> None:
    made = await _create(backend)
    path = f"/v1/meetings/{made['meeting_id']}"
    people = {who: (await _join(backend, made, who))[1] for who in ("ann", "bob", "carl")}
    callers = {who: backend.bearing(joined["token"]) for who, joined in people.items()}
    async with _client(people["ann"]) as ann, _client(people["bob"]) as bob, _client(people["carl"]):
        await bob.publish("audio", "mic")
        status, state = await callers["ann"]("GET", path + "/participants/bob/media")
        assert (status, state["audio_enabled"], state["video_enabled"]) == (200, True, False)
        off, on = {"audio_enabled": False}, {"audio_enabled": True}
        assert (await callers["carl"]("PUT", path + "/participants/bob/media", off))[0] == 403
        assert (await callers["ann"]("PUT", path + "/participants/bob/media", off))[0] == 200
        assert (await bob.wait("mute")).muted
        assert (await callers["ann"]("PUT", path + "/participants/bob/media", on))[0] == 403
        status, state = await callers["bob"]("PUT", path + "/participants/bob/media", on)
        assert (status, state["audio_enabled"]) == (200, True)
        await ann.wait("update", match=lambda u: any(t.muted for p in u.participants for t in p.tracks))

        chat = path + "/chat"
        say = {"sender_id": "bob", "message": "hello"}
        assert (await callers["bob"]("POST", chat, say))[0] == 201
        secret = {"sender_id": "bob", "message": "psst", "recipient_id": "ann"}
        assert (await callers["bob"]("POST", chat, secret))[0] == 201
        assert (await callers["bob"]("POST", chat, {**secret, "recipient_id": "nobody"}))[0] == 404
        seen = {who: (await callers[who]("GET", chat))[1]["messages"] for who in callers}
        assert [m["message"] for m in seen["ann"]] == ["hello", "psst"]
        assert [m["message"] for m in seen["bob"]] == ["hello", "psst"]
        assert [m["message"] for m in seen["carl"]] == ["hello"]
        outside = backend.bearing((await _join(backend, made, "dora"))[1]["token"])
        assert [(await outside("GET", path + at))[0] for at in ("/participants", "/chat")] == [403, 403]
        assert [m["message"] for m in (await backend("GET", chat))[1]["messages"]] == ["hello"]
        statuses = [(await callers["carl"]("POST", chat, {**say, "sender_id": "carl"}))[0] for _ in range(30)]
        assert statuses[0] == 201 and 429 in statuses
        status, page = await callers["ann"]("GET", chat + "?limit=1")
        _, rest = await callers["ann"]("GET", f"{chat}?limit=1&after={page['next']}")
        assert [m["message"] for m in page["messages"] + rest["messages"]] == ["hello", "psst"]

        assert (await callers["bob"]("POST", path + "/leave", {"participant_id": "bob"}))[0] == 200
        assert (await bob.wait("leave")).action == rtc.LeaveRequest.DISCONNECT


async def test_a_host_leads_somebody_to_another_node(pair: Gateways, backend: Rest) -> None:
    made = await _create(backend)
    path = f"/v1/meetings/{made['meeting_id']}/participants"
    people = {who: (await _join(backend, made, who))[1] for who in ("ann", "bob")}
    callers = {who: backend.bearing(joined["token"]) for who, joined in people.items()}
    async with _client(people["ann"]) as ann, _client(people["bob"]) as bob:
        here = bob.me.attributes["headwater.node"]
        there = "us-1" if here == "eu-1" else "eu-1"
        assert (await callers["bob"]("PUT", path + "/ann/node", {}))[0] == 403
        assert (await callers["ann"]("PUT", path + "/dora/node", {}))[0] == 404
        status, answer = await callers["ann"]("PUT", path + "/bob/node", {"node_id": "us-9"})
        assert status == 400 and "us-9" not in answer["error"]["message"]
        status, answer = await callers["ann"]("PUT", path + "/bob/node", {"node_id": there})
        led = {"participant_id": "bob", "node_id": there, "region": there[:2], "moving": True}
        assert (status, answer) == (200, led)
        assert await callers["ann"]("GET", path + "/bob/node") == (200, led)
        assert (await callers["bob"]("GET", path + "/ann/node"))[0] == 403
        assert (await callers["ann"]("PUT", path + "/bob/node", {}))[0] == 409, "it is on its way"
        at = ("bob", "headwater.node", there)
        await ann.wait(
            "update",
            match=lambda u: any((p.identity, at[1], p.attributes[at[1]]) == at for p in u.participants),
        )


async def test_a_clients_clock_neither_deletes_nor_dates_what_is_kept(pair: Gateways, backend: Rest) -> None:
    made = await _create(backend)
    name, started = made["meeting_id"], datetime.now(UTC)
    bob = (await _join(backend, made, "bob"))[1]
    async with _client(bob) as there:
        caller, chat = backend.bearing(bob["token"]), f"/v1/meetings/{name}/chat"
        assert (await caller("POST", chat, {"sender_id": "bob", "message": "first"}))[0] == 201
        said = models.ChatMessage(id="x", message="from the future", timestamp=2**62)
        event = node_pb2.Event(room_id=name)
        event.data.transport_id, event.data.label = f"{there.me.sid}/pub", "_reliable"
        event.data.payload = models.DataPacket(chat_message=said).SerializeToString()
        for node in pair.nodes:
            node.emit(event)

        async def kept() -> list[dict[str, Any]]:
            status, page = await caller("GET", chat)
            assert status == 200, page
            return page["messages"] if len(page["messages"]) > 1 else []

        messages = await until(kept, 10, "what was said over the data channel is kept")
    assert [m["message"] for m in messages] == ["first", "from the future"]
    assert started <= datetime.fromisoformat(messages[1]["sent_at"]) <= datetime.now(UTC)


async def test_too_many_meetings_at_once(pair: Gateways, backend: Rest) -> None:
    assert pair.writer is not None
    pair.writer.refuse = 503
    assert (await backend("POST", "/v1/meetings", {"host_id": "ann", "password": ""}))[0] == 503
    wrong = {"host_id": "ann", "cluster": "none"}
    statuses = [(await backend("POST", "/v1/meetings", wrong))[0] for _ in range(30)]
    assert statuses[0] == 400 and statuses[-1] == 429
    past = {"host_id": "bob", "scheduled_time": "2001-01-01T00:00:00Z"}
    assert (await backend("POST", "/v1/meetings", past))[0] == 400
