"""Talks to TURN nodes: the whole wish goes there, their account comes back."""

import json
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from headwater_api.certificates import AUTHORITY
from headwater_api.turn_token import turn_token
from headwater_api.wellknown import (
    ENV_TURN_ADMIN_TLS_DIR,
    PORT_TURN_ADMIN,
    PORT_TURN_COMMANDS,
    TURN_TLS_NAME,
)

CALL_S: Final = 2.0
MAX_ANSWER: Final = 65_536


class TurnUnreachable(Exception):
    """A TURN node did not answer, or refused; the text says how."""


@dataclass(frozen=True, slots=True)
class TurnWish:
    """All that a TURN node is told. `secrets`: "<Secret>/<key>"."""

    peers: tuple[str, ...]
    secrets: tuple[str, ...]
    draining: bool
    deadline_s: float

    def body(self) -> dict[str, Any]:
        """The wire form."""
        return {
            "peers": list(self.peers),
            "secrets": list(self.secrets),
            "draining": self.draining,
            "deadlineSeconds": self.deadline_s,
        }


class TurnClient:
    """One HTTP session for all nodes; `close` ends it."""

    def __init__(self, node_token: str, tls_dir: Path | None = None) -> None:
        """`tls_dir`: with ca.crt, which is read once, when a node with TLS is first called."""
        self._tls_dir = tls_dir
        self._tls: ssl.SSLContext | None = None
        self._headers = {"Authorization": f"Bearer {turn_token(node_token)}"}
        self._stack = AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None

    async def desire(self, ip: str, wish: TurnWish, *, tls: bool = False) -> Mapping[str, Any]:
        """Its account after it has taken the wish over. `tls`: as its Pod says. Raises TurnUnreachable."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=CALL_S)
            self._session = await self._stack.enter_async_context(
                aiohttp.ClientSession(timeout=timeout, headers=self._headers, trust_env=False)
            )
        host = f"[{ip}]" if ":" in ip else ip
        base = f"https://{host}:{PORT_TURN_COMMANDS}" if tls else f"http://{host}:{PORT_TURN_ADMIN}"
        checked: Mapping[str, Any] = (
            {"ssl": self._authority(), "server_hostname": TURN_TLS_NAME} if tls else {}
        )
        try:
            async with self._session.put(f"{base}/desired", json=wish.body(), **checked) as response:
                text = await read_answer(response.content)
                if response.status != 200:
                    raise TurnUnreachable(f"{response.status}: {text[:200].decode(errors='replace')}")
                answer = json.loads(text)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise TurnUnreachable(str(error) or type(error).__name__) from error
        if not isinstance(answer, dict):
            raise TurnUnreachable("it answered something else than an object")
        return answer

    def _authority(self) -> ssl.SSLContext:
        if self._tls_dir is None:
            raise TurnUnreachable(f"{ENV_TURN_ADMIN_TLS_DIR} is not set, and its Pod was made with TLS")
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context(cafile=self._tls_dir / AUTHORITY)
            except OSError as error:  # ssl.SSLError is one
                raise TurnUnreachable(
                    f"{ENV_TURN_ADMIN_TLS_DIR}={self._tls_dir}: {AUTHORITY}: {error}"
                ) from None
        return self._tls

    async def close(self) -> None:
        await self._stack.aclose()


async def read_answer(stream: aiohttp.StreamReader) -> bytes:
    """The whole body: `read(n)` would give what has arrived by now. ValueError: more than MAX_ANSWER."""
    body = bytearray()
    async for chunk in stream.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ValueError(f"it answered more than {MAX_ANSWER} bytes")
    return bytes(body)
