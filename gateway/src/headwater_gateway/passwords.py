"""Meeting passwords and host keys: argon2 hashes from Secrets, checked off the event loop, a few at a time.

A check takes tens of milliseconds and 64 MiB by design (RFC 9106 §4, second recommended option), so it must
not run on the loop, and strangers must not be able to order many: attempts are limited by address and room.
What was right once is remembered, so that a thousand participants with the same password cost one check.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.profiles import RFC_9106_LOW_MEMORY
from headwater_api.ids import RoomId

from headwater_gateway.limits import Rate

AT_ONCE: Final = 2
REMEMBERED: Final = 4096
PASSWORD: Final = "password"
HOST_KEY: Final = "host key"
UNREADABLE: Final = "unreadable"  # the Secret is not there (yet): no password is right
PREFIX: Final = "$argon2"
MAX_PASSWORD: Final = 256
HASHER: Final = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


def fingerprint(hashed: str) -> str:
    """Names a hash without giving it away. Tokens carry it: a changed password voids the older ones."""
    return hashlib.sha256(hashed.encode()).hexdigest()[:16]


class TooManyAttempts(Exception):
    """Somebody guesses. The message is fit for the client."""


class Passwords:
    """The hashes of the Meetings' passwords and host keys. Filled as their Secrets are read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._hashes: dict[tuple[RoomId, str], str] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._key = secrets.token_bytes(32)
        self._clock = clock
        self._by_address = Rate(per_second=0.2, burst=10)
        self._by_room = Rate(per_second=20, burst=100)

    def set(self, room: RoomId, what: str, hashed: str) -> None:
        """The room's password (or host key) is the one behind this hash."""
        self._hashes[room, what] = hashed

    def forget(self, room: RoomId, what: str) -> None:
        """The room has none."""
        self._hashes.pop((room, what), None)

    def fingerprint(self, room: RoomId, what: str = PASSWORD) -> str:
        """Of the hash that is known now; UNREADABLE while none is."""
        hashed = self._hashes.get((room, what))
        return fingerprint(hashed) if hashed is not None else UNREADABLE

    async def prove(self, room: RoomId, text: str, address: str, what: str = PASSWORD) -> str:
        """The fingerprint of the room's hash if the password is right, else an empty string.

        TooManyAttempts.
        """
        hashed = self._hashes.get((room, what))
        if hashed is None or len(text) > MAX_PASSWORD:
            return ""
        return fingerprint(hashed) if await self.matches(hashed, text, room, address) else ""

    async def matches(self, hashed: str, password: str, room: RoomId, address: str) -> bool:
        """Whether the password is the one behind the hash. TooManyAttempts."""
        known = hmac.digest(self._key, f"{hashed}\n{password}".encode(), "sha256")
        if known in self._right:
            self._right.move_to_end(known)
            return True
        now = self._clock()
        if not (self._by_address.take(address, now) and self._by_room.take(room, now)):
            raise TooManyAttempts("too many passwords were tried: wait a minute")
        async with self._slots:
            right = await asyncio.to_thread(_verify, hashed, password)
        if right:
            self._right[known] = None
            if len(self._right) > REMEMBERED:
                self._right.popitem(last=False)
        return right


async def hash_password(password: str) -> str:
    """A hash for a Secret."""
    return await asyncio.to_thread(HASHER.hash, password)


def _verify(hashed: str, password: str) -> bool:
    try:
        return HASHER.verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False
