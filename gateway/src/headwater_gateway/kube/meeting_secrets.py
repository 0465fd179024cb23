"""The Secrets that Meetings name: passwords and host keys, read by name, again every minute or so.

Gateways may `get` Secrets of their namespace and nothing more: they neither list nor watch them. A Secret
that cannot be read leaves its room with a password that nobody knows: closed, until it can.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
from headwater_api.ids import RoomId
from headwater_api.reasons import Reason
from headwater_dial.api_server import NO_ANSWER, request
from kubernetes.aio.client import ApiClient

from headwater_gateway.bodies import BodyTooLarge, read_body
from headwater_gateway.passwords import PASSWORD, PREFIX, Passwords, hash_password
from headwater_gateway.tasks import report

READ_S: Final = 10.0
AGAIN_S: Final = 60.0
RETRY_S: Final = 2.0
MAX_BYTES: Final = 1_100_000  # a Secret holds at most 1 MiB

log = structlog.get_logger(__name__)

Read = Callable[[str, str], Awaitable[str]]
Wanted = tuple[RoomId, str]  # room, what


class SecretMissing(Exception):
    """The Secret, or its key, is not there or cannot be read; the message says which."""


def secret_reader(api: ApiClient, namespace: str) -> Read:
    """Reads one key of one Secret."""

    async def read(name: str, key: str) -> str:
        path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        try:
            async with asyncio.timeout(READ_S):
                response = await request(api, "GET", path)
                body = await read_body(response.content, MAX_BYTES)
        except (*NO_ANSWER, BodyTooLarge) as error:
            raise SecretMissing(f"{name}: {type(error).__name__}") from None
        if response.status != 200:
            raise SecretMissing(f"{name}: HTTP {response.status}")
        return _value(json.loads(body), name, key)

    return read


def _value(secret: Mapping[str, object], name: str, key: str) -> str:
    data = secret.get("data")
    text = data.get(key) if isinstance(data, dict) else None
    if not isinstance(text, str):
        raise SecretMissing(f"{name} has no key {key!r}")
    try:
        return base64.b64decode(text, validate=True).decode().rstrip("\n")
    except (binascii.Error, UnicodeDecodeError):
        raise SecretMissing(f"{name}: {key} is not text") from None


class MeetingSecrets:
    """Keeps `Passwords` as the Secrets say. `on_changed` hears of rooms whose password has changed."""

    def __init__(self, passwords: Passwords, rng: random.Random) -> None:
        self._passwords, self._rng = passwords, rng
        self._refs: dict[Wanted, tuple[str, str]] = {}
        self._due: dict[Wanted, float] = {}
        self._texts: dict[Wanted, str] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.on_changed: Callable[[RoomId], None] = lambda _: None

    def want(self, room: RoomId, refs: Mapping[str, tuple[str, str]]) -> None:
        """What the room's Meeting names now."""
        for wanted in [key for key in self._refs if key[0] == room and key[1] not in refs]:
            self._forget(wanted)
        for what, ref in refs.items():
            if self._refs.get((room, what)) != ref:
                self._forget((room, what))
                self._refs[room, what] = ref
                self._due[room, what] = 0.0
                self._wake.set()

    def _forget(self, wanted: Wanted) -> None:
        self._refs.pop(wanted, None)
        self._due.pop(wanted, None)
        self._texts.pop(wanted, None)
        self._passwords.forget(*wanted)

    def fingerprint(self, room: RoomId) -> str:
        """What a room's policy says of its password; empty: it has none."""
        return self._passwords.fingerprint(room) if (room, PASSWORD) in self._refs else ""

    def start(self, read: Read) -> None:
        """Begin to read."""
        self._task = asyncio.create_task(self._run(read), name="meeting secrets")
        report(self._task, "meeting.secrets_died")

    async def _run(self, read: Read) -> None:
        while True:
            now = time.monotonic()
            for wanted in [key for key, due in self._due.items() if due <= now]:
                await self._refresh(read, wanted)
            self._wake.clear()
            nearest = min(self._due.values(), default=now + AGAIN_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.05, nearest - time.monotonic())):
                    await self._wake.wait()

    async def _refresh(self, read: Read, wanted: Wanted) -> None:
        ref = self._refs.get(wanted)
        if ref is None:
            return
        wait = AGAIN_S
        try:
            text = await read(*ref)
            if text != self._texts.get(wanted):
                hashed = text if text.startswith(PREFIX) else await hash_password(text)
                if self._refs.get(wanted) == ref:
                    self._texts[wanted] = text
                    self._passwords.set(*wanted, hashed)
                    self.on_changed(wanted[0])
        except SecretMissing as error:
            log.warning(
                "meeting.secret_unreadable", room=wanted[0], reason=Reason.OBSERVE_FAILED, why=str(error)
            )
            wait = RETRY_S
        except Exception:
            log.exception("meeting.secret_failed", room=wanted[0])
        if wanted in self._due:
            self._due[wanted] = time.monotonic() + wait * (0.75 + 0.5 * self._rng.random())

    async def aclose(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
