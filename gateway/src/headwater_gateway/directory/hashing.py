"""Rendezvous hashing: every gateway comes to the same choice without asking anybody. Pure."""

import hashlib
from collections.abc import Iterable

from headwater_api.ids import GatewayId, RoomId


def rank(room: RoomId, name: str) -> tuple[bytes, str]:
    """How much of all names this one is the room's: the greatest is."""
    return hashlib.blake2b(f"{name}\n{room}".encode(), digest_size=8).digest(), name


def choose(room: RoomId, gateways: Iterable[GatewayId]) -> GatewayId:
    """The gateway of a room. When one goes or comes, only its own rooms change. ValueError: there is none."""
    return max(gateways, key=lambda gateway: rank(room, gateway))
