"""The only writes of a gateway: Meetings that somebody asks for by REST, and their end.

It may create and delete Meetings and create Secrets, nothing else (the chart's Role `…-gateway-meetings`),
and is never on the path of a join. Everything else of a Meeting is the operator's.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import structlog
from headwater_api import wellknown
from headwater_dial.api_server import NO_ANSWER, request
from kubernetes.aio.client import ApiClient

from headwater_gateway.meetings import Object, WriteRefused

WRITE_S: Final = 10.0
FIELD_MANAGER: Final = "headwater-gateway"

log = structlog.get_logger(__name__)


class KubernetesMeetings:
    """The MeetingWriter of a gateway on Kubernetes, for its own namespace."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._api = api
        self._meetings = f"/apis/{wellknown.GROUP}/{wellknown.VERSION}/namespaces/{namespace}/meetings"
        self._secrets = f"/api/v1/namespaces/{namespace}/secrets"

    async def create(self, meeting: Object, secret: Mapping[str, str]) -> Object:
        """The Meeting first: its uid makes the Secret go with it. Until that is there the room is closed."""
        made = await self._call("POST", f"{self._meetings}?fieldManager={FIELD_MANAGER}", meeting)
        metadata = made["metadata"]
        try:
            await self._call("POST", self._secrets, _secret_of(metadata, secret))
        except WriteRefused:
            await self.delete(metadata["name"])
            raise
        return made

    async def delete(self, name: str) -> None:
        try:
            await self._call("DELETE", f"{self._meetings}/{name}", {"propagationPolicy": "Background"})
        except WriteRefused as refused:
            if refused.status != 404:
                raise

    async def _call(self, method: str, path: str, body: Object) -> dict[str, Any]:
        try:
            async with asyncio.timeout(WRITE_S):
                answer = await request(self._api, method, path, body)
                raw = await answer.read()
        except NO_ANSWER as error:
            raise WriteRefused(0, f"the API server cannot be asked: {type(error).__name__}") from None
        if answer.status >= 300:
            why = raw[:500].decode(errors="replace")
            log.warning("kube.write_refused", method=method, path=path, status=answer.status)
            raise WriteRefused(answer.status, why)
        result: dict[str, Any] = json.loads(raw)
        return result


def _secret_of(metadata: Mapping[str, Any], values: Mapping[str, str]) -> Object:
    """The Secret of a Meeting, which goes with it."""
    owner = {
        "apiVersion": f"{wellknown.GROUP}/{wellknown.VERSION}",
        "kind": "Meeting",
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": metadata["name"],
            "labels": {wellknown.LABEL_MANAGED_BY: wellknown.MANAGED_BY},
            "ownerReferences": [owner],
        },
        "stringData": dict(values),
    }
