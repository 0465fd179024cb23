"""An engine without media: keeps the contract of `headwater_sfu.engine.Engine` for the agent's tests."""

import os
from collections import deque
from collections.abc import Sequence

from headwater_api.nodev1 import node_pb2


class StaleEpoch(Exception):
    """The room was commanded under a newer epoch."""


class FakeEngine:
    """Remembers what it was told; `emit` queues events as the native engine would."""

    def __init__(
        self,
        *,
        bind: Sequence[str],
        advertise: Sequence[str] | None,
        node_id: str,
        region: str,
        max_connections: int,
    ) -> None:
        self.bind = list(bind)
        self.advertise = advertise
        self.draining = False
        self.closed = False
        self.connections = 0
        self.epochs: dict[str, int] = {}
        self.held: dict[str, node_pb2.RoomHeld] = {}
        self.resynced: list[str] = []
        self.transports: set[str] = set()
        self.broken = False
        self.asked = 0  # to carry out commands
        self.linked = False
        self.stalled_ms = 0
        self._node = (node_id, region, max_connections)
        self._events: deque[tuple[str, bytes]] = deque()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def emit(self, controller_id: str, room_id: str, count: int = 1) -> None:
        event = node_pb2.Event(room_id=room_id, room_closed=node_pb2.RoomClosed(reason="test"))
        payload = node_pb2.WatchResponse(events=[event]).SerializeToString()
        self._events.extend([(controller_id, payload)] * count)
        os.eventfd_write(self._fd, 1)

    def say(self, controller_id: str, room_id: str, text: str) -> None:
        """A client has sent data."""
        data = node_pb2.DataEvent(transport_id="t", label="_reliable", payload=text.encode())
        event = node_pb2.Event(room_id=room_id, data=data)
        self._events.append((controller_id, node_pb2.WatchResponse(events=[event]).SerializeToString()))
        os.eventfd_write(self._fd, 1)

    def transport_is(
        self, controller_id: str, room_id: str, transport_id: str, state: node_pb2.TransportState.ValueType
    ) -> None:
        """A transport has changed."""
        changed = node_pb2.TransportEvent(transport_id=transport_id, state=state)
        event = node_pb2.Event(room_id=room_id, transport=changed)
        self._events.append((controller_id, node_pb2.WatchResponse(events=[event]).SerializeToString()))
        os.eventfd_write(self._fd, 1)

    def info(self) -> bytes:
        node_id, region, limit = self._node
        return node_pb2.NodeInfo(
            node_id=node_id,
            region=region,
            max_connections=limit,
            incarnation="1",
            dtls_fingerprint="sha-256 AB",
            media_addresses=self.bind,
        ).SerializeToString()

    def apply(self, request: bytes) -> bytes:
        self.asked += 1
        try:
            message = node_pb2.ApplyRequest.FromString(request)
        except Exception as error:
            raise ValueError(str(error)) from error
        if self.broken:
            raise RuntimeError("the engine's thread is gone")
        if message.epoch < self.epochs.get(message.room_id, 0):
            raise StaleEpoch(f"room {message.room_id} has seen epoch {self.epochs[message.room_id]}")
        self.epochs[message.room_id] = message.epoch
        held = self.held.setdefault(message.room_id, node_pb2.RoomHeld(room_id=message.room_id))
        held.epoch, held.controller_id = message.epoch, message.controller_id
        held.lease_left_ms = message.lease_ms
        for command in message.commands:
            if command.HasField("create_transport"):
                self.transports.add(command.create_transport.transport_id)
            if command.HasField("put_snapshot") and command.put_snapshot.version > held.snapshot_version:
                held.snapshot_version = command.put_snapshot.version
                held.snapshot = command.put_snapshot.blob
        results = [node_pb2.CommandResult() for _ in message.commands]
        return node_pb2.ApplyResponse(results=results).SerializeToString()

    def rooms(self, request: bytes) -> bytes:
        try:
            message = node_pb2.RoomsRequest.FromString(request)
        except Exception as error:
            raise ValueError(str(error)) from error
        named = message.room_ids or list(self.held)
        rooms = [self.held[room] for room in named if room in self.held]
        return node_pb2.RoomsResponse(rooms=rooms).SerializeToString()

    def fileno(self) -> int:
        return self._fd

    def drain(self, limit: int) -> list[tuple[str, bytes]]:
        return [self._events.popleft() for _ in range(min(limit, len(self._events)))]

    def resync(self, controller_id: str) -> None:
        self.resynced.append(controller_id)
        self.emit(controller_id, "resync")

    def report(self) -> bytes:
        if self.broken:
            raise RuntimeError("the engine's thread is gone")
        node_id, region, limit = self._node
        report = node_pb2.NodeReport(
            node_id=node_id, region=region, max_connections=limit, connections=self.connections
        )
        report.links.add(link_id="link-1", room_id="room-1", peer_node_id="peer", up=self.linked, tx_tracks=3)
        report.media_stalled_ms = self.stalled_ms
        report.drops["unknown_ssrc"] = 7
        return report.SerializeToString()

    def set_draining(self, draining: bool) -> None:
        self.draining = draining

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._fd)
