"""Links to the other gateways: each one's beats say that its loop turns."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Final

import aiohttp
import structlog
from headwater_api.ids import GatewayId

from headwater_gateway.directory.liveness import SILENCE_S, Liveness, Verdict
from headwater_gateway.own_time import OwnTime
from headwater_gateway.tasks import report

log = structlog.get_logger(__name__)

PATH: Final = "/peer"
# How a gateway says that it goes: to the links that stand, and to new ones.
CLOSE_LEAVING: Final = 1001
STATUS_LEAVING: Final = 503
DIAL_S: Final = 0.5
CLOSE_S: Final = 0.1  # a peer that hangs is not waited for
REDIAL_S: Final = 0.15
REDIAL_CAP_S: Final = 1.0


class Peers:
    """Owner of one link task for each other gateway."""

    def __init__(
        self,
        headers: Callable[[], Mapping[str, str]],
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._headers = headers
        self._own = OwnTime(clock)
        self._clock = self._own.now
        self._rng = rng or random.Random()
        self._urls: dict[GatewayId, str] = {}
        self._known: dict[GatewayId, Liveness] = {}
        self._tasks: dict[GatewayId, asyncio.Task[None]] = {}
        self._ended: set[asyncio.Task[None]] = set()
        self._dial_now: dict[GatewayId, asyncio.Event] = {}
        self._http: aiohttp.ClientSession | None = None

    def seen(self, gateway: GatewayId, url: str) -> None:
        """A gateway Pod with an address. The same name at another address is another process."""
        if self._urls.get(gateway) == url:
            return
        self.gone(gateway)
        self._own.start()
        self._urls[gateway] = url
        self._known[gateway] = Liveness(self._clock())
        self._dial_now[gateway] = asyncio.Event()
        task = asyncio.create_task(self._follow(gateway, url), name=f"peer {gateway}", context=Context())
        report(task, "gateway.link_died")
        self._tasks[gateway] = task

    def gone(self, gateway: GatewayId) -> None:
        """Its Pod is gone."""
        if self._urls.pop(gateway, None) is None:
            return
        del self._known[gateway], self._dial_now[gateway]
        task = self._tasks.pop(gateway)
        task.cancel()
        self._ended.add(task)
        task.add_done_callback(self._ended.discard)

    def verdict(self, gateway: GatewayId) -> Verdict:
        """DEAD also for one that no Pod bears."""
        known = self._known.get(gateway)
        return known.verdict(self._clock()) if known is not None else Verdict.DEAD

    def doubt(self, gateway: GatewayId) -> None:
        """It could not be reached just now: look again at once."""
        if gateway in self._dial_now:
            self._known[gateway].lose(refused=False)
            self._dial_now[gateway].set()

    async def settled(self, gateway: GatewayId) -> Verdict:
        """The verdict, once there is one; at most a little more than the silence that means death."""
        deadline = self._clock() + SILENCE_S + 0.2
        while True:
            verdict = self.verdict(gateway)
            known = self._known.get(gateway)
            certain = known is None or not known.broken or verdict is Verdict.DEAD
            if certain or self._clock() >= deadline:
                return verdict
            await asyncio.sleep(0.02)

    async def _follow(self, gateway: GatewayId, url: str) -> None:
        known, dial_now = self._known[gateway], self._dial_now[gateway]
        pause = REDIAL_S
        while True:
            before = known.heard_at
            refused = await self._listen(url, known)
            was = known.verdict(self._clock())
            known.lose(refused=refused)
            if refused and was is not Verdict.DEAD:
                log.warning("gateway.gone", gateway=gateway, url=url)
            pause = REDIAL_S if known.heard_at != before else min(REDIAL_CAP_S, pause * 1.5)
            if not refused and known.heard_at != before:
                continue  # a link that broke: whether its process still listens is to be seen at once
            dial_now.clear()
            try:
                async with asyncio.timeout(pause * (0.5 + 0.5 * self._rng.random())):
                    await dial_now.wait()
            except TimeoutError:
                pass

    async def _listen(self, url: str, known: Liveness) -> bool:
        """Until the link breaks or falls silent. True: nobody listens there, or it says that it goes."""
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        headers = dict(self._headers())
        try:
            async with asyncio.timeout(DIAL_S):
                link = await self._http.ws_connect(
                    f"{url}{PATH}",
                    headers=headers,
                    max_msg_size=4096,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                )
        except aiohttp.ClientConnectorError as error:
            return isinstance(error.os_error, ConnectionRefusedError)
        except aiohttp.WSServerHandshakeError as error:
            return error.status == STATUS_LEAVING
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        is_new, heard_at = True, self._clock()
        try:
            while True:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        message = await link.receive()
                except TimeoutError:
                    if self._clock() - heard_at < SILENCE_S:
                        continue  # it was this process that stood: what came meanwhile is still to be read
                    return False
                heard_at = self._clock()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return link.close_code == CLOSE_LEAVING
                known.hear(heard_at)
                if is_new:
                    log.info("gateway.heard", url=url)
                    is_new = False
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        finally:
            await link.close()

    async def aclose(self) -> None:
        """End every link."""
        for gateway in list(self._urls):
            self.gone(gateway)
        await asyncio.gather(*self._ended, self._own.aclose(), return_exceptions=True)
        if self._http is not None:
            await self._http.close()
