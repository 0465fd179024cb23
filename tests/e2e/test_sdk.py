"""The unmodified Python SDK in two regions: everything that is not a picture."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from headwater_sandbox.demo.tokens import signal_url
from headwater_sandbox.demo.tone import tone_block
from livekit import rtc
from support.cluster import Cluster
from support.deadline import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(90)]

GRANTS = {"canUpdateOwnMetadata": True, "canPublishData": True}
RATE = 48_000
EVENTS = (
    "data_received",
    "participant_connected",
    "participant_disconnected",
    "participant_metadata_changed",
    "participant_attributes_changed",
    "participant_name_changed",
    "track_published",
    "track_unpublished",
    "track_subscribed",
    "track_unsubscribed",
    "track_muted",
    "track_unmuted",
    "active_speakers_changed",
    "disconnected",
    "reconnecting",
    "reconnected",
)


@dataclass
class Client:
    """A room of the SDK and everything that it has told us."""

    room: rtc.Room
    told: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    def of(self, event: str) -> list[tuple[Any, ...]]:
        return [arguments for name, arguments in self.told if name == event]

    async def heard(self, event: str, within_s: float = 10) -> tuple[Any, ...]:
        await until(lambda: self.of(event), within_s, f"{self.room.local_participant.identity} hears {event}")
        return self.of(event)[-1]


@contextlib.asynccontextmanager
async def joined(
    cluster: Cluster, room: str, identity: str, region: str, auto_subscribe: bool = True
) -> AsyncIterator[Client]:
    client = Client(rtc.Room())
    for event in EVENTS:
        client.room.on(event, lambda *a, name=event: client.told.append((name, a)))
    options = rtc.RoomOptions(auto_subscribe=auto_subscribe)
    token = cluster.token(room, identity, grants=GRANTS)
    await asyncio.wait_for(client.room.connect(signal_url(cluster.gateway, region), token, options), 20)
    try:
        yield client
    finally:
        await asyncio.wait_for(client.room.disconnect(), 10)


@contextlib.asynccontextmanager
async def talking(client: Client) -> AsyncIterator[rtc.LocalTrackPublication]:
    """The client publishes a tone for the length of the block."""
    source = rtc.AudioSource(RATE, 1, queue_size_ms=200)
    track = rtc.LocalAudioTrack.create_audio_track("voice", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)

    async def sound() -> None:
        start = 0
        while True:
            samples = tone_block(440.0, RATE, start, RATE // 10)
            await source.capture_frame(rtc.AudioFrame(samples.tobytes(), RATE, 1, RATE // 10))
            start += RATE // 10

    task = asyncio.create_task(sound())
    try:
        yield await asyncio.wait_for(client.room.local_participant.publish_track(track, options), 15)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def track_of(client: Client, identity: str) -> rtc.Track | None:
    """A subscribed track of that participant."""
    participant = client.room.remote_participants.get(identity)
    publications = participant.track_publications.values() if participant else ()
    return next((publication.track for publication in publications if publication.track), None)


async def test_data_reaches_whom_it_is_for_over_regions(cluster: Cluster) -> None:
    room = "data"
    async with (
        joined(cluster, room, "ann", "eu") as ann,
        joined(cluster, room, "bob", "us") as bob,
        joined(cluster, room, "cyd", "ap") as cyd,
    ):
        await until(lambda: len(ann.room.remote_participants) == 2, 10, "ann sees both")
        me = ann.room.local_participant
        await me.publish_data(b"for all", topic="chat")
        await me.publish_data("für dich", destination_identities=["cyd"], topic="private")
        await me.publish_data(b"x" * 40_000, topic="long")
        await until(lambda: len(cyd.of("data_received")) == 3, 10, "cyd has all three")
        await until(lambda: len(bob.of("data_received")) == 2, 10, "bob has two")
        seen = [packet for (packet,) in cyd.of("data_received")]
        assert [(p.topic, p.participant.identity) for p in seen] == [
            ("chat", "ann"),
            ("private", "ann"),
            ("long", "ann"),
        ]
        assert seen[1].data == "für dich".encode()
        assert len(seen[2].data) == 40_000
        assert [packet.topic for (packet,) in bob.of("data_received")] == ["chat", "long"]
        assert ann.of("data_received") == []

        # A lossy packet may be lost, so it is repeated until one has come.
        async def lossy() -> bool:
            await me.publish_data(b"now", reliable=False, topic="lossy")
            return any(packet.topic == "lossy" for (packet,) in bob.of("data_received"))

        await until(lossy, 10, "a lossy packet arrives", every_s=0.2)


async def test_metadata_name_and_attributes_are_told_to_the_others(cluster: Cluster) -> None:
    async with joined(cluster, "meta", "ann", "eu") as ann, joined(cluster, "meta", "bob", "us") as bob:
        me = ann.room.local_participant
        await asyncio.wait_for(me.set_metadata('{"hand": true}'), 10)
        await asyncio.wait_for(me.set_name("Ann A."), 10)
        await asyncio.wait_for(me.set_attributes({"mood": "good"}), 10)
        await bob.heard("participant_metadata_changed")
        await bob.heard("participant_name_changed")
        await bob.heard("participant_attributes_changed")
        seen = bob.room.remote_participants["ann"]
        assert (seen.metadata, seen.name, seen.attributes["mood"]) == ('{"hand": true}', "Ann A.", "good")
        assert seen.attributes["headwater.region"] == "eu"


async def test_a_client_cannot_claim_to_be_elsewhere(cluster: Cluster) -> None:
    async with joined(cluster, "claim", "ann", "eu") as ann, joined(cluster, "claim", "bob", "us") as bob:
        node = ann.room.local_participant.attributes["headwater.node"]
        with contextlib.suppress(Exception):  # refused, in the SDK's own kind of error
            await asyncio.wait_for(
                ann.room.local_participant.set_attributes({"headwater.node": "mine", "mood": "sly"}), 10
            )
        await ann.room.local_participant.set_attributes({"after": "1"})
        await until(
            lambda: bob.room.remote_participants["ann"].attributes.get("after"), 10, "later ones work"
        )
        assert bob.room.remote_participants["ann"].attributes["headwater.node"] == node


async def test_mute_unmute_and_unpublish_are_told_and_speech_is_noticed(cluster: Cluster) -> None:
    async with (
        joined(cluster, "mute", "ann", "eu") as ann,
        joined(cluster, "mute", "bob", "us") as bob,
        talking(ann) as publication,
    ):
        await bob.heard("track_subscribed", 15)
        await until(
            lambda: any(
                p.identity == "ann" for (speakers,) in bob.of("active_speakers_changed") for p in speakers
            ),
            15,
            "ann is noticed as a speaker",
        )
        publication.track.mute()
        _, muted = await bob.heard("track_muted")
        assert muted.sid == publication.sid
        publication.track.unmute()
        await bob.heard("track_unmuted")
        await asyncio.wait_for(ann.room.local_participant.unpublish_track(publication.sid), 10)
        await bob.heard("track_unsubscribed")
        await until(
            lambda: not bob.room.remote_participants["ann"].track_publications, 10, "the publication is gone"
        )


async def test_without_auto_subscribe_only_what_is_asked_for_comes(cluster: Cluster) -> None:
    async with (
        joined(cluster, "choosy", "ann", "eu") as ann,
        joined(cluster, "choosy", "bob", "us", auto_subscribe=False) as bob,
        talking(ann),
    ):
        publication, _ = await bob.heard("track_published", 15)
        assert bob.of("track_subscribed") == []
        publication.set_subscribed(True)
        await bob.heard("track_subscribed", 15)
        publication.set_subscribed(False)
        await bob.heard("track_unsubscribed")


async def test_the_same_identity_again_takes_over(cluster: Cluster) -> None:
    async with (
        joined(cluster, "twice", "ann", "eu") as first,
        joined(cluster, "twice", "bob", "us") as bob,
        joined(cluster, "twice", "ann", "ap") as second,
    ):
        (reason,) = await first.heard("disconnected")
        assert reason == rtc.DisconnectReason.DUPLICATE_IDENTITY
        await until(
            lambda: (
                (ann := bob.room.remote_participants.get("ann"))
                and ann.attributes.get("headwater.region") == "ap"
            ),
            10,
            "bob sees the second ann only",
        )
        assert second.room.isconnected()


@pytest.mark.parametrize("scenario", ["SIMULATE_SIGNAL_RECONNECT", "SIMULATE_FULL_RECONNECT"])
async def test_media_goes_on_after_a_reconnect(cluster: Cluster, scenario: str) -> None:
    room = f"again-{scenario[9:].lower().replace('_', '-')}"
    async with (
        joined(cluster, room, "ann", "eu") as ann,
        joined(cluster, room, "bob", "us") as bob,
        talking(ann),
    ):
        await bob.heard("track_subscribed", 15)
        before = track_of(bob, "ann")
        await asyncio.wait_for(ann.room.simulate_scenario(getattr(rtc.SimulateScenarioKind, scenario)), 20)
        await ann.heard("reconnected", 20)
        is_another = scenario == "SIMULATE_FULL_RECONNECT"  # bob may hear of that later than ann

        def track_after() -> rtc.Track | None:
            now = track_of(bob, "ann")
            return now if now is not None and (now is not before) == is_another else None

        track = await until(track_after, 20, "bob has ann's track")
        stream = rtc.AudioStream(track, sample_rate=8000, frame_size_ms=100)
        try:
            async with asyncio.timeout(20):
                async for event in stream:
                    if max(event.frame.data) > 3000:
                        break
        finally:
            await stream.aclose()
        await ann.room.local_participant.publish_data(b"back")
        await bob.heard("data_received")


async def test_leaving_is_told(cluster: Cluster) -> None:
    async with joined(cluster, "leave", "bob", "us") as bob:
        async with joined(cluster, "leave", "ann", "eu"):
            await bob.heard("participant_connected")
        (gone,) = await bob.heard("participant_disconnected")
        assert gone.identity == "ann"
