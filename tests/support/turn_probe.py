"""A TURN client that asks for what it should not get: one request after the other, answers as numbers.

RFC 8656 (UDP) and RFC 6062 (TCP relaying), over aioice's STUN messages.
"""

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any, Final, Self

from aioice import stun

PROBE: Final = b"probe: this must not arrive"
ANSWER_S: Final = 2.0
_REQUEST, _INDICATION, _RESPONSE = stun.Class.REQUEST, stun.Class.INDICATION, stun.Class.RESPONSE
CONNECT: Final = 0x00A
Address = tuple[str, int]
# What a valid user tries to reach: the special-purpose ranges of both families and their disguises.
FORBIDDEN: Final[tuple[str, ...]] = (
    "0.0.0.0", "0.0.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "10.0.0.1", "172.16.0.1",
    "192.168.0.1", "100.64.0.1", "198.18.0.1", "192.0.2.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255", "8.8.8.8",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "::10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::", "fe80::1",
    "fc00::1", "fd00::1", "ff02::1",
)  # fmt: skip


def _without_tail(data: bytes) -> bytes:
    """The message without FINGERPRINT and MESSAGE-INTEGRITY, which no longer fit its changed type."""
    at, end = 20, len(data)
    while at < end:
        kind, length = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in (0x0008, 0x8028):
            break
        at += 4 + (length + 3) // 4 * 4
    return data[:2] + (at - 20).to_bytes(2, "big") + data[4:at]


class Refused(Exception):
    """An error answer (STUN error code), or 0 for none at all."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


@dataclass
class TurnProbe(asyncio.DatagramProtocol):
    """One client on one socket. Use as `async with`: it has an allocation then."""

    server: Address
    username: str
    password: str
    transport_protocol: int = 17  # UDP; 6: TCP relaying
    relayed: Address = ("", 0)
    received: list[tuple[Address, bytes]] = field(default_factory=list)
    _nonce: bytes = b""
    _realm: str = ""
    _waiting: dict[bytes, "asyncio.Future[stun.Message]"] = field(default_factory=dict)
    _transport: Any = None
    _stream: Any = None

    async def __aenter__(self) -> Self:
        """Allocates. Raises Refused."""
        loop = asyncio.get_running_loop()
        if self.transport_protocol == 6:  # RFC 6062 §4.1: only over TCP
            reader, writer = await asyncio.open_connection(*self.server)
            self._stream = writer
            self._reading = asyncio.create_task(self._read(reader))
        else:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, remote_addr=self.server)
        try:
            try:
                await self._allocate()
            except Refused as refused:
                if refused.code != 401 or not self._nonce:
                    raise
                await self._allocate()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._stream is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._stream.close()

    async def _allocate(self) -> None:
        answer = await self.ask(
            stun.Method.ALLOCATE, {"REQUESTED-TRANSPORT": self.transport_protocol << 24, "LIFETIME": 600}
        )
        self.relayed = answer.attributes["XOR-RELAYED-ADDRESS"]

    async def connect(self, peer: Address) -> None:
        """Connect (RFC 6062 §4.3): a TCP connection to the peer. Raises Refused."""
        await self.ask(CONNECT, {"XOR-PEER-ADDRESS": peer})

    async def ask(self, method: int, attributes: dict[str, Any]) -> stun.Message:
        """A request's answer. Raises Refused."""
        request = stun.Message(message_method=method, message_class=_REQUEST)  # type: ignore[arg-type]
        request.attributes.update(attributes)
        if self._nonce:
            request.attributes |= {"USERNAME": self.username, "NONCE": self._nonce, "REALM": self._realm}
            request.add_message_integrity(
                hashlib.md5(f"{self.username}:{self._realm}:{self.password}".encode()).digest()
            )
        future = asyncio.get_running_loop().create_future()
        self._waiting[request.transaction_id] = future
        self._send(bytes(request))
        try:
            async with asyncio.timeout(ANSWER_S):
                answer: stun.Message = await future
        except TimeoutError:
            raise Refused(0) from None
        if answer.message_class is not _RESPONSE:
            self._nonce = answer.attributes.get("NONCE", self._nonce)
            self._realm = answer.attributes.get("REALM", self._realm)
            raise Refused(answer.attributes["ERROR-CODE"][0])
        return answer

    async def release(self) -> None:
        """A refresh with lifetime 0 ends the allocation (RFC 8656 §7). Raises Refused."""
        await self.ask(stun.Method.REFRESH, {"LIFETIME": 0})

    async def permit(self, peer: Address) -> None:
        """CreatePermission. Raises Refused."""
        await self.ask(stun.Method.CREATE_PERMISSION, {"XOR-PEER-ADDRESS": peer})

    async def bind(self, channel: int, peer: Address) -> None:
        """ChannelBind. Raises Refused."""
        await self.ask(stun.Method.CHANNEL_BIND, {"CHANNEL-NUMBER": channel, "XOR-PEER-ADDRESS": peer})

    def send(self, peer: Address) -> None:
        """A Send indication: nobody answers it."""
        message = stun.Message(message_method=stun.Method.SEND, message_class=_INDICATION)
        message.attributes |= {"XOR-PEER-ADDRESS": peer, "DATA": PROBE}
        self._send(bytes(message))

    def send_on(self, channel: int) -> None:
        """Channel data."""
        self._send(
            channel.to_bytes(2, "big") + len(PROBE).to_bytes(2, "big") + PROBE + b"\0" * (-len(PROBE) % 4)
        )

    def _send(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.write(data)
        else:
            self._transport.sendto(data)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while head := await reader.readexactly(4):
            rest = await reader.readexactly(int.from_bytes(head[2:], "big") + 16)
            self.datagram_received(head + rest, self.server)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data[0] & 0xC0:  # channel data
            return
        if int.from_bytes(data[:2], "big") & 0x3EEF == CONNECT:  # a method that the library does not know
            data = (int.from_bytes(data[:2], "big") ^ CONNECT ^ stun.Method.REFRESH).to_bytes(
                2, "big"
            ) + data[2:]
            data = _without_tail(data)
        message = stun.parse_message(data)
        if message.message_class is _INDICATION:
            self.received.append((message.attributes["XOR-PEER-ADDRESS"], message.attributes["DATA"]))
        elif (future := self._waiting.pop(message.transaction_id, None)) and not future.done():
            future.set_result(message)
