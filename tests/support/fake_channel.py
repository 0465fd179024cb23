"""A LiveKit client without media over a SignalChannel in memory: joins, offers, answers by text."""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

from headwater_api.ids import ParticipantIdentity, ParticipantSid, RegionName, RoomId
from headwater_gateway.signal.types import Claims, ClientHello, RegionSource, VideoGrant
from livekit.protocol import models, rtc
from support.deadline import until

FINGERPRINT = "sha-256 " + ":".join(["CD"] * 32)


def hello(identity: str, room: str = "demo", region: str = "", **changes: Any) -> ClientHello:
    """A verified client of that identity; `grant` overrides its video grant."""
    grant = changes.pop("grant", VideoGrant(room_join=True, room=room))
    claims = Claims(api_key="key", identity=ParticipantIdentity(identity), name=identity.title(), video=grant)
    return ClientHello(
        room=RoomId(room),
        identity=ParticipantIdentity(identity),
        claims=claims,
        region=RegionName(region),
        region_source=RegionSource.OVERRIDE,
        protocol=changes.pop("protocol", 16),
        **changes,
    )


def publisher_offer(*cids: tuple[str, str], ufrag: str = "cufr") -> str:
    """An offer with one m-line for each (kind, cid); video has three simulcast layers."""
    mids = " ".join(str(i) for i in range(len(cids)))
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", f"a=group:BUNDLE {mids}"]
    for mid, (kind, cid) in enumerate(cids):
        pt, codec = (111, "opus/48000/2") if kind == "audio" else (96, "VP8/90000")
        lines += [
            f"m={kind} 9 UDP/TLS/RTP/SAVPF {pt}",
            "c=IN IP4 0.0.0.0",
            f"a=ice-ufrag:{ufrag}",
            "a=ice-pwd:cpwdcpwdcpwdcpwdcpwdcpwd",
            f"a=fingerprint:{FINGERPRINT}",
            "a=setup:actpass",
            f"a=mid:{mid}",
            "a=sendonly",
            "a=rtcp-mux",
            f"a=msid:stream {cid}",
            f"a=rtpmap:{pt} {codec}",
            "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid",
        ]
        if kind == "video":
            lines += ["a=extmap:2 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"]
            lines += [f"a=rid:{rid} send" for rid in "qhf"] + ["a=simulcast:send q;h;f"]
        else:
            lines += [f"a=ssrc:{1000 + mid} cname:x"]
    return "\r\n".join(lines) + "\r\n"


def answer_to(offer: str) -> str:
    """A client's answer that takes everything."""
    text = re.sub(
        r"a=candidate:.*\r\n|a=end-of-candidates\r\n|a=ice-lite\r\n|a=ssrc.*\r\n|a=msid:.*\r\n", "", offer
    )
    text = text.replace("a=setup:actpass", "a=setup:active").replace("a=sendonly", "a=recvonly")
    text = re.sub(r"a=ice-ufrag:.*", "a=ice-ufrag:cufr", text)
    return (
        re.sub(r"a=fingerprint:.*", f"a=fingerprint:{FINGERPRINT}", text)
        .replace("\r", "")
        .replace("\n", "\r\n")
    )


@dataclass
class FakeClient:
    """Both a SignalChannel for the session and the client at its other end."""

    auto_answer: bool = True
    received: list[rtc.SignalResponse] = field(default_factory=list)
    received_at: list[float] = field(default_factory=list)  # of each of `received`, seconds of the loop
    closed: tuple[int, str] | None = None
    closed_at: float = 0.0
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self._inbox: asyncio.Queue[rtc.SignalRequest | None] = asyncio.Queue()

    # -- SignalChannel

    async def send(self, response: rtc.SignalResponse) -> None:
        if self.closed is not None:
            return
        copy = rtc.SignalResponse()
        copy.CopyFrom(response)
        self._receive(copy)
        if response.HasField("offer") and self.auto_answer:
            self.answer(response.offer)

    async def send_encoded(self, binary: bytes, message: rtc.SignalResponse) -> None:
        assert binary == message.SerializeToString()
        await self.send(message)

    def send_at_once(self, binary: bytes) -> bool:
        if self.closed is None:
            self._receive(rtc.SignalResponse.FromString(binary))
        return True

    def _receive(self, message: rtc.SignalResponse) -> None:
        self.received.append(message)
        self.received_at.append(asyncio.get_running_loop().time())

    async def recv(self) -> rtc.SignalRequest | None:
        return await self._inbox.get() if self.closed is None else None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self.closed is None:
            self.closed, self.closed_at = (code, reason), asyncio.get_running_loop().time()
            self._inbox.put_nowait(None)

    # -- the client

    def say(self, **fields: Any) -> None:
        self._inbox.put_nowait(rtc.SignalRequest(**fields))

    def drop(self) -> None:
        """The network is gone: no leave."""
        self._inbox.put_nowait(None)

    def answer(self, offer: rtc.SessionDescription) -> None:
        self.say(answer=rtc.SessionDescription(type="answer", sdp=answer_to(offer.sdp), id=offer.id))

    def add_track(self, kind: str, cid: str, **fields: Any) -> None:
        audio = kind == "audio"
        self.say(
            add_track=rtc.AddTrackRequest(
                cid=cid,
                name=cid,
                type=models.TrackType.AUDIO if audio else models.TrackType.VIDEO,
                source=models.TrackSource.MICROPHONE if audio else models.TrackSource.CAMERA,
                layers=[]
                if audio
                else [
                    models.VideoLayer(quality=q, width=w, height=w * 9 // 16)
                    for q, w in zip(
                        (models.VideoQuality.LOW, models.VideoQuality.MEDIUM, models.VideoQuality.HIGH),
                        (320, 640, 1280),
                        strict=True,
                    )
                ],
                **fields,
            )
        )

    def offer(self, *cids: tuple[str, str], id: int = 1, ufrag: str = "cufr") -> None:
        sdp = publisher_offer(*cids, ufrag=ufrag)
        self.say(offer=rtc.SessionDescription(type="offer", sdp=sdp, id=id))

    def all(self, kind: str) -> list[Any]:
        return [getattr(m, kind) for m in self.received if m.WhichOneof("message") == kind]

    async def wait(self, kind: str, count: int = 1, within_s: float = 15) -> Any:
        """The count-th message of a kind."""
        await until(
            lambda: len(self.all(kind)) >= count, within_s, f"{count} {kind} (got {self.kinds()})", 0.005
        )
        return self.all(kind)[count - 1]

    def first_at(self, kind: str) -> float:
        """When the first message of a kind came, seconds of the loop."""
        return self.received_at[self.kinds().index(kind)]

    def kinds(self) -> list[str]:
        return [str(m.WhichOneof("message")) for m in self.received]

    @property
    def sid(self) -> ParticipantSid:
        return ParticipantSid(self.all("join")[0].participant.sid)

    def roster(self) -> dict[str, models.ParticipantInfo]:
        """What the client believes, by identity: as its SDK would."""
        rows: dict[str, models.ParticipantInfo] = {}
        for row in self.all("join")[0].other_participants if self.all("join") else ():
            rows[row.identity] = row
        for update in self.all("update"):
            for row in update.participants:
                if row.state == models.ParticipantInfo.DISCONNECTED:
                    if rows.get(row.identity) is not None and rows[row.identity].sid == row.sid:
                        del rows[row.identity]
                else:
                    rows[row.identity] = row
        return rows
