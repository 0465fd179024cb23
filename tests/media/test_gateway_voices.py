"""A room where one microphone is heard: real clients on two nodes hear the loudest, and lose no packet."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headwater_api import wellknown
from headwater_api.ids import GatewayId, RoomId
from headwater_gateway.room.model import RoomConfig
from headwater_sandbox.demo.tone import frequency, tone_block, tone_heard
from livekit import rtc
from support.deadline import until
from support.gateway_edge import NODE_TOKEN, edge_settings, token
from support.gateways import gateway_running
from support.processes import loopback_address, running
from support.sdk_client import SdkClient, sdk_client

RATE = 48_000
BLOCK = RATE // 50
LOUD, QUIET = 1.0, 0.004  # of the tone's own amplitude: -16 and -64 dBov, about

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Of a gateway over a node in each of two regions; its room `demo` lets one be heard."""
    async with AsyncExitStack() as stack:
        known = []
        for region in ("eu", "us"):
            env = {
                wellknown.ENV_POD_NAME: f"{region}-1",
                wellknown.ENV_REGION: region,
                wellknown.ENV_CLUSTER: "demo",
                wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
            }
            ip = loopback_address()
            await stack.enter_async_context(running("headwater_sfu", env, ip, tmp_path / f"{region}.log"))
            known.append(f"{region}-1={region}@{ip}:{wellknown.PORT_NODE_GRPC}")
        monkeypatch.setenv("HEADWATER_STATIC_NODES", ",".join(known))
        ip = loopback_address()
        more = {"gateway": GatewayId("gw-0"), "bind_address": ip, "signal_port": wellknown.PORT_SIGNAL}
        plane = await stack.enter_async_context(
            gateway_running(edge_settings(tmp_path, region_override=True, **more))
        )
        plane.directory.meeting_seen(RoomId("demo"), RoomConfig(audio_top_n=1))
        await until(lambda: len(plane.directory.pool.views()) == 2, 20, "both nodes are known")
        yield f"ws://{ip}:{wellknown.PORT_SIGNAL}"


class Voice:
    """A participant with a tone of its own, whose loudness the test sets, and what it hears of the others."""

    def __init__(self, client: SdkClient, source: int) -> None:
        self.client, self.source, self.gain = client, source, QUIET
        self.heard: dict[str, bool] = {}
        self.tracks: dict[str, Any] = {}

    async def publish(self, stack: AsyncExitStack) -> None:
        microphone = rtc.AudioSource(RATE, 1, queue_size_ms=40)
        track = rtc.LocalAudioTrack.create_audio_track(str(self.source), microphone)
        spawn(stack, self._sound(microphone))
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)
        await self.client.room.local_participant.publish_track(track, options)

    async def _sound(self, microphone: rtc.AudioSource) -> None:
        start = 0
        while True:
            samples = (tone_block(frequency(self.source), RATE, start, BLOCK) * self.gain).astype(np.int16)
            await microphone.capture_frame(rtc.AudioFrame(samples.tobytes(), RATE, 1, BLOCK))
            start += BLOCK

    async def listen(self, who: str, track: Any) -> None:
        hz = frequency(int(track.name))
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=100, capacity=20)
        with contextlib.suppress(asyncio.CancelledError):
            async for event in stream:
                self.heard[who] = tone_heard(np.frombuffer(event.frame.data, dtype=np.int16), hz, RATE)
        await stream.aclose()

    def hears(self) -> set[str]:
        return {who for who, is_heard in self.heard.items() if is_heard}

    async def _stats(self) -> dict[str, list[Any]]:
        """Of each one's stream; nothing before its first packet."""
        found = {}
        for who, track in self.tracks.items():
            rows = await track.get_stats()
            found[who] = [row.inbound_rtp for row in rows if row.WhichOneof("stats") == "inbound_rtp"]
        return found

    async def received(self) -> dict[str, int]:
        """Packets of each one's stream so far."""
        table = await self._stats()
        return {who: sum(row.received.packets_received for row in rows) for who, rows in table.items()}

    async def lost(self) -> dict[str, int]:
        """Packets missing of each one's stream, so far, and those that it has asked for again."""
        table = await self._stats()
        return {
            who: sum(row.received.packets_lost + row.inbound.nack_count for row in rows)
            for who, rows in table.items()
        }


async def received_since(voice: Voice, before: dict[str, int], speaker: str) -> dict[str, int]:
    """What a listener got of each, over at least 25 packets of the speaker."""
    grown: dict[str, int] = {}

    async def enough() -> bool:
        grown.update({who: count - before[who] for who, count in (await voice.received()).items()})
        return grown[speaker] >= 25

    await until(enough, 15, f"25 packets of {speaker}")
    return grown


def spawn(stack: AsyncExitStack, work: Any) -> None:
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


async def test_the_loudest_is_heard_on_every_node_and_what_is_not_sent_is_not_missed(url: str) -> None:
    who = {"ann": "eu", "bob": "eu", "cyd": "us", "dan": "us"}
    voices: dict[str, Voice] = {}
    async with AsyncExitStack() as stack:
        for source, (name, region) in enumerate(who.items()):
            bearer = token(sub=name, name=name)
            client = await stack.enter_async_context(sdk_client(f"{url}?region={region}", bearer))
            voices[name] = voice = Voice(client, source)

            def on_track(track: Any, _: Any, other: Any, voice: Voice = voice) -> None:
                voice.tracks[other.identity] = track
                spawn(stack, voice.listen(other.identity, track))

            client.room.on("track_subscribed", on_track)
            for publication in [
                (p, other)
                for other in client.room.remote_participants.values()
                for p in other.track_publications.values()
                if p.track is not None
            ]:
                on_track(publication[0].track, None, publication[1])
            if name != "dan":
                await voice.publish(stack)
        dan = voices["dan"]
        await until(lambda: set(dan.tracks) == {"ann", "bob", "cyd"}, 20, "dan has three streams")
        for speaker in ("ann", "cyd", "bob", "cyd", "ann"):
            for name, voice in voices.items():
                voice.gain = LOUD if name == speaker else QUIET
            listeners = [voice for name, voice in voices.items() if name != speaker]
            await until(
                lambda who={speaker}, by=listeners: all(voice.hears() == who for voice in by),  # type: ignore[misc]
                15,
                f"{speaker} is heard everywhere, and nobody else",
            )
            grown = await received_since(dan, await dan.received(), speaker)
            # Where all stand still for a moment, whoever comes first after it is heard for a packet.
            assert {who for who, count in grown.items() if 2 * count > grown[speaker]} == {speaker}, grown
        # Each of the pauses is longer than that: none of them looks like loss.
        assert sum((await dan.lost()).values()) < 20
