"""List and watch of one resource: the objects that are there now, told as they come, change and go."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import aiohttp
import structlog
from headwater_dial.api_server import NO_ANSWER, request
from kubernetes.aio.client import ApiClient

from headwater_gateway.backoff import Backoff

log = structlog.get_logger(__name__)

LIST_DEADLINE_S: Final = 15.0
# Bookmarks come about each minute; a stream that is silent for longer is broken.
SILENCE_S: Final = 90.0
WATCH_S: Final = 240
MAX_LINE_BYTES: Final = 4_000_000

Object = Mapping[str, Any]


class Expired(Exception):
    """The resource version is too old: list anew."""


class Unreachable(Exception):
    """The API server cannot be asked now."""


class Sink(Protocol):
    """Told of objects on the event loop; must not block."""

    def seen(self, name: str, body: Object) -> None: ...
    def gone(self, name: str) -> None: ...


class Reflector:
    """Follows one path for ever. Objects that vanished during a gap are told as gone after the next list."""

    def __init__(
        self, api: ApiClient, path: str, sink: Sink, rng: random.Random, *, labels: str = ""
    ) -> None:
        self._api, self._path, self._sink, self._labels = api, path, sink, labels
        self._backoff = Backoff(rng, first=0.2, cap=10.0)
        self._known: set[str] = set()
        self.synced = asyncio.Event()
        self._log = log.bind(path=path)

    async def run(self) -> None:
        """Until cancelled."""
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                    self.synced.set()
                    self._backoff.reset()
                async for kind, body in self._watch(version):
                    version = body["metadata"]["resourceVersion"]
                    self._take(kind, body)
                    self._backoff.reset()
            except Expired:
                version = ""
            except (Unreachable, aiohttp.ClientError, OSError, ValueError, KeyError) as error:
                reason = f"{type(error).__name__}: {error}"[:300]
                self._log.warning("kube.unreachable", reason=reason)
            await asyncio.sleep(self._backoff.next())

    async def _list(self) -> str:
        async with asyncio.timeout(LIST_DEADLINE_S):
            response = await self._get({})
            answer = json.loads(await response.read())
        names = set()
        for body in answer.get("items") or ():
            names.add(body["metadata"]["name"])
            self._sink.seen(body["metadata"]["name"], body)
        for name in self._known - names:
            self._sink.gone(name)
        self._known = names
        return str(answer["metadata"]["resourceVersion"])

    def _take(self, kind: str, body: Object) -> None:
        if kind == "BOOKMARK":  # only a version, no name
            return
        name = body["metadata"]["name"]
        if kind == "DELETED":
            self._known.discard(name)
            self._sink.gone(name)
        elif kind in ("ADDED", "MODIFIED"):
            self._known.add(name)
            self._sink.seen(name, body)

    async def _watch(self, version: str) -> AsyncIterator[tuple[str, Object]]:
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        response = await self._get(query)
        try:
            async for line in _lines(response.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Expired
                yield event["type"], event["object"]
        finally:
            response.close()

    async def _get(self, query: dict[str, str]) -> aiohttp.ClientResponse:
        if self._labels:
            query = {**query, "labelSelector": self._labels}
        path = f"{self._path}?{urlencode(query)}" if query else self._path
        try:
            async with asyncio.timeout(LIST_DEADLINE_S):
                response = await request(self._api, "GET", path)
        except NO_ANSWER as error:
            raise Unreachable(f"{type(error).__name__}: {error}"[:200]) from None
        if response.status == 410:
            response.close()
            raise Expired
        if response.status != 200:
            raise Unreachable(f"HTTP {response.status}: {await _excerpt(response)}")
        return response


async def _excerpt(response: aiohttp.ClientResponse) -> str:
    """The beginning of an error's body."""
    try:
        async with asyncio.timeout(LIST_DEADLINE_S):
            return (await response.content.read(300)).decode(errors="replace")
    except (TimeoutError, aiohttp.ClientError):
        return "its body did not come"
    finally:
        response.close()


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines of a stream. ValueError past the bound, TimeoutError in a silence."""
    rest = b""
    while True:
        async with asyncio.timeout(SILENCE_S):
            chunk = await content.readany()
        if not chunk:
            return
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError(f"a watch event is larger than {MAX_LINE_BYTES} bytes")
        for line in whole:
            if line.strip():
                yield line


class CallbackSink:
    """A Sink of two functions."""

    def __init__(self, seen: Callable[[str, Object], None], gone: Callable[[str], None]) -> None:
        self._seen, self._gone = seen, gone

    def seen(self, name: str, body: Object) -> None:
        self._seen(name, body)

    def gone(self, name: str) -> None:
        self._gone(name)
