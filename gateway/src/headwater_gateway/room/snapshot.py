"""A room's state as a blob that nodes keep for the room's next owner, and back. Pure.

A snapshot names its owner's claim (epoch and gateway), its version, which grows over all owners of the room,
and the snapshots of other owners that went into it: by these a reader knows which of two is the newer one, or
that neither is (the room was split).
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headwater_api.ids import GatewayId, RoomId
from headwater_api.nodev1 import node_pb2
from pydantic import ConfigDict, TypeAdapter

from headwater_gateway.room import codec
from headwater_gateway.room.model import IdSource
from headwater_gateway.room.state import RoomState

MAGIC: Final = b"HWRS"
SCHEMA: Final = 1  # raised when older gateways could not read what newer ones write
MAX_BLOB_BYTES: Final = 3_500_000  # nodes take 4 MiB
MAX_TEXT_BYTES: Final = 64_000_000
MAX_SEEN: Final = 8
LEVEL: Final = 1
# What is plain already, as `json` would write it, three times faster: rooms are written each second.
_PLAIN: Final[TypeAdapter[Any]] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants"))


class SnapshotError(ValueError):
    """A blob that this gateway cannot use; the text says why."""


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """Who owns a room: nodes obey the greatest. Two gateways never make the same one."""

    epoch: int
    gateway: GatewayId


def holder_of(rows: Iterable[node_pb2.RoomReport | node_pb2.RoomHeld]) -> Claim | None:
    """The greatest claim on a room that its nodes tell of. None: they tell of none."""
    claims = [Claim(row.epoch, GatewayId(row.controller_id)) for row in rows if row.controller_id]
    return max(claims, default=None)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A room as one owner knew it. `seen`: newest versions of other claims that are contained."""

    room_id: RoomId
    claim: Claim
    version: int
    packed: Mapping[str, Any]
    seen: Mapping[str, int] = field(default_factory=dict)

    def contains(self, other: "Snapshot") -> bool:
        """Whether all that `other` says was known here."""
        if other.claim == self.claim:
            return other.version <= self.version
        return self.seen.get(_key(other.claim), -1) >= other.version

    def rank(self) -> tuple[Claim, int]:
        """A total order, for what has no better rule."""
        return self.claim, self.version


def _key(claim: Claim) -> str:
    return f"{claim.epoch}/{claim.gateway}"


def newest(snapshots: Iterable[Snapshot]) -> tuple[Snapshot, ...]:
    """Those that no other contains, highest claim first; more than one: the room was split."""
    found = sorted({s.rank(): s for s in snapshots}.values(), key=Snapshot.rank, reverse=True)
    return tuple(s for s in found if not any(o is not s and o.contains(s) for o in found))


def inherited(snapshots: Iterable[Snapshot]) -> tuple[int, dict[str, int]]:
    """The version and the `seen` that a successor of these snapshots starts with."""
    version, seen = 0, dict[str, int]()
    claims: dict[str, Claim] = {}
    for snapshot in snapshots:
        version = max(version, snapshot.version)
        for key, known in {**snapshot.seen, _key(snapshot.claim): snapshot.version}.items():
            seen[key] = max(seen.get(key, -1), known)
            claims[key] = _claim(key)
    keep = sorted(seen, key=lambda key: claims[key], reverse=True)[:MAX_SEEN]
    return version, {key: seen[key] for key in keep}


def _claim(key: str) -> Claim:
    epoch, _, gateway = key.partition("/")
    return Claim(int(epoch) if epoch.isdigit() else 0, GatewayId(gateway))


def encode(state: RoomState, claim: Claim, version: int, seen: Mapping[str, int], now: float) -> bytes:
    """The blob. A room too large for a node goes without its roster: what guards the door comes first."""
    for pack in (codec.pack, _without_roster):
        body = {
            "room": state.room_id,
            "epoch": claim.epoch,
            "gateway": claim.gateway,
            "version": version,
            "seen": seen,
            "state": pack(state, now),
        }
        text = _PLAIN.dump_json(body)
        blob = MAGIC + bytes([SCHEMA]) + zlib.compress(text, LEVEL)
        if len(blob) <= MAX_BLOB_BYTES and len(text) <= MAX_TEXT_BYTES:
            return blob
    raise SnapshotError(f"room {state.room_id} is larger than {MAX_BLOB_BYTES} bytes even without its roster")


def _without_roster(state: RoomState, now: float) -> dict[str, Any]:
    packed = codec.pack(state, now)
    packed.pop("participants", None)
    packed.pop("cascade", None)
    return packed


def decode(blob: bytes) -> Snapshot:
    """SnapshotError names what is wrong with the blob."""
    if blob[: len(MAGIC)] != MAGIC or len(blob) == len(MAGIC):
        raise SnapshotError("not a room snapshot")
    if blob[len(MAGIC)] > SCHEMA:
        raise SnapshotError(f"schema {blob[len(MAGIC)]} is newer than {SCHEMA}: upgrade this gateway")
    try:
        unzip = zlib.decompressobj()
        text = unzip.decompress(blob[len(MAGIC) + 1 :], MAX_TEXT_BYTES)
        if not unzip.eof:
            raise SnapshotError(f"cut off, or larger than {MAX_TEXT_BYTES} bytes")
        body = json.loads(text)
        return Snapshot(
            RoomId(body["room"]),
            Claim(int(body["epoch"]), GatewayId(body["gateway"])),
            int(body["version"]),
            body["state"],
            {str(key): int(version) for key, version in body["seen"].items()},
        )
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotError(f"unreadable: {error}") from error


def restore(snapshot: Snapshot, ids: IdSource, now: float) -> RoomState:
    """The state again, with what does not travel made anew. SnapshotError."""
    try:
        state: RoomState = codec.unpack(RoomState, dict(snapshot.packed), now, ids=ids)
    except codec.CodecError as error:
        raise SnapshotError(str(error)) from error
    index(state)
    return state


def index(state: RoomState) -> None:
    """Make the tables that follow from the roster."""
    state.by_identity.clear()
    state.tracks.clear()
    for participant in state.participants.values():
        state.by_identity[participant.identity] = participant.sid
        state.tracks.update(participant.tracks)
