"""Reads of the API server with the user's own kubeconfig and rights. Nothing here writes."""

import asyncio
import json
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from headwater_dial.api_server import NO_ANSWER, open_api, request, user_credentials
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config.config_exception import ConfigException

CALL_DEADLINE_S: Final = 10.0
Object = dict[str, Any]


class KubeError(Exception):
    """The API server did not do it. `status`: 0 where it was not reached."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Reader:
    """GETs of plain JSON. Close it."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self.server_time: datetime | None = None  # of the newest answer

    @classmethod
    async def open(cls, kubeconfig: Path | None, context: str | None) -> "Reader":
        """With $KUBECONFIG's current context unless told otherwise. Raises KubeError."""
        try:
            configuration = await user_credentials(kubeconfig, context)
        except (ConfigException, OSError, ValueError) as error:
            raise KubeError(0, f"no usable kubeconfig: {error}") from error
        return cls(open_api(configuration))

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, path: str) -> Object:
        """The object at a path. Raises KubeError."""
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                response = await request(self._api, "GET", path)
                raw = await response.read()
        except NO_ANSWER as error:
            raise KubeError(0, str(error) or f"no answer within {CALL_DEADLINE_S:g} s") from error
        if date := response.headers.get("Date"):
            self.server_time = parsedate_to_datetime(date)
        try:
            body: Object = json.loads(raw)
        except ValueError:
            body = {"message": raw[:200].decode(errors="replace")}
        if response.status >= 300:
            raise KubeError(response.status, str(body.get("message", response.status)))
        return body

    async def items(self, path: str) -> list[Object]:
        """The items of a list. Raises KubeError."""
        found: list[Object] = (await self.get(path)).get("items", [])
        return found
