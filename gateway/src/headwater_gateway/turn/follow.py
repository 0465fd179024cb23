"""Follows one TURN node: its account each second, and its end within a moment."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import structlog
from headwater_api.ids import ClusterName, RegionName
from headwater_api.wellknown import PORT_TURN_ADMIN

from headwater_gateway.backoff import Backoff

log = structlog.get_logger(__name__)
# It speaks each second: three lines that are missing and it is dialled anew.
SILENCE_S: Final = 3.0
DIAL_S: Final = 1.0
MAX_LINE: Final = 65_536


@dataclass(frozen=True, slots=True)
class TurnPod:
    """A TURN node's Pod, from the Pod watch."""

    name: str
    region: RegionName
    ip: str
    cluster: ClusterName | None = None
    # By which clients reach it, where that is not its own. Told later, it is still the same node.
    external: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Account:
    """What a node last said of itself. `accepted`: references of the secrets that it takes."""

    ready: bool
    closing: bool
    accepted: tuple[str, ...]
    tls_port: int  # 0: no TLS

    @classmethod
    def of(cls, line: bytes) -> "Account":
        """From a line of its stream. ValueError where it is none."""
        said: Any = json.loads(line)
        if not isinstance(said, Mapping):
            raise ValueError("a line of a TURN node is no object")
        accepted, port = said.get("accepted"), said.get("tlsPort")
        return cls(
            ready=said.get("ready") is True,
            closing=said.get("closing") is True,
            accepted=tuple(map(str, accepted)) if isinstance(accepted, list) else (),
            tls_port=port if isinstance(port, int) else 0,
        )


class Follower:
    """`run` for as long as the Pod is there. `account` is None while the node does not speak."""

    def __init__(
        self,
        pod: TurnPod,
        http: aiohttp.ClientSession,
        backoff: Backoff,
        on_leave: Callable[[TurnPod, str], None],
    ) -> None:
        self.pod, self.account = pod, None
        self._http, self._backoff, self._on_leave = http, backoff, on_leave
        self._sent_away = True  # nobody to send away before it served

    account: Account | None

    async def run(self) -> None:
        """Until cancelled. A stream that breaks is dialled once more before the node counts as dead."""
        while True:
            why = await self._listen()
            if self.account is not None:  # it spoke: perhaps only the connection broke
                self._backoff.reset()
                again = await self._listen(only_first=True)
                if not again:
                    continue
                self.lose(f"{why}; {again}")
            await asyncio.sleep(self._backoff.next())

    def lose(self, why: str) -> None:
        """It is gone: those who relayed over it are to find another way, once."""
        self.account = None
        self._send_away(why)

    def _send_away(self, why: str) -> None:
        if not self._sent_away:
            self._sent_away = True
            log.warning("turn.lost", node=self.pod.name, reason=why)
            self._on_leave(self.pod, why)

    async def _listen(self, *, only_first: bool = False) -> str:
        """Why the stream ended; empty after the first line where only that is asked for."""
        host = f"[{self.pod.ip}]" if ":" in self.pod.ip else self.pod.ip
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=DIAL_S, sock_read=SILENCE_S)
        try:
            async with self._http.get(f"http://{host}:{PORT_TURN_ADMIN}/watch", timeout=timeout) as stream:
                if stream.status != 200:
                    return f"it answered {stream.status}"
                async for line in stream.content:
                    self._take(Account.of(line))
                    if only_first:
                        return ""
            return "its stream ended"
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            return str(error) or type(error).__name__

    def _take(self, account: Account) -> None:
        self.account = account
        if account.ready:
            self._sent_away = False
        elif account.closing:
            self._send_away("the deadline of its drain is over")
