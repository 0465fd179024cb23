"""A thin client over `kubernetes.aio`: plain JSON objects, server-side apply, and a fence before each write.

It does not retry: that is the loops' business. Every call has a deadline.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlencode

from headwater_dial.api_server import JSON, NO_ANSWER, credentials, open_api, request
from kubernetes.aio.client import ApiClient

from headwater_operator.kube.errors import Unavailable, error_of
from headwater_operator.kube.resources import Resource

Object = dict[str, Any]
Page = list[Object]
FIELD_MANAGER: Final = "headwater-operator"
_APPLY: Final = "application/apply-patch+yaml"
_PAGE: Final = 500
_MAX_PAGES: Final = 200


def no_fence() -> None:
    """The fence of those who need none: reads, and the Lease itself."""


class KubeClient:
    """Reads anything; writes only while `fence()` does not raise."""

    def __init__(
        self,
        api: ApiClient,
        *,
        fence: Callable[[], None] = no_fence,
        timeout_s: float = 15.0,
        write_timeout_s: float | None = None,
    ) -> None:
        self._api = api
        self._fence = fence
        self._timeout_s = timeout_s
        self._write_timeout_s = timeout_s if write_timeout_s is None else write_timeout_s

    def fenced(self, fence: Callable[[], None], *, write_timeout_s: float) -> "KubeClient":
        """The same connection, fenced; a write that passed the fence is given up after `write_timeout_s`."""
        return KubeClient(self._api, fence=fence, timeout_s=self._timeout_s, write_timeout_s=write_timeout_s)

    def require_leadership(self) -> None:
        """Raises NotLeader where this replica may not act now: for acts that write nothing here."""
        self._fence()

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object. Raises NotFound, Unavailable, Refused."""
        return await self._call("GET", resource.path(namespace, name))

    async def list(self, resource: Resource, namespace: str = "", *, labels: str = "") -> Page:
        """All objects of a kind, read from etcd and not from the watch cache, in pages."""
        return [item async for page in self.pages(resource, namespace, labels=labels) for item in page]

    async def pages(
        self, resource: Resource, namespace: str = "", *, labels: str = ""
    ) -> AsyncIterator[Page]:
        """What `list` reads, page by page: all of them as of one moment. For kinds of which there are
        thousands, whose bodies need not be in memory at the same time."""
        token = ""
        for _ in range(_MAX_PAGES):
            query = {"limit": str(_PAGE)}
            if labels:
                query["labelSelector"] = labels
            if token:
                query["continue"] = token
            page = await self._call("GET", resource.path(namespace), query=query)
            token = page.get("metadata", {}).get("continue", "")
            yield page.pop("items", [])
            if not token:
                return
        raise Unavailable(f"the list of {resource.plural} did not end after {_MAX_PAGES} pages")

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        """POST. Raises Conflict where the name is taken."""
        self._fence()
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("POST", resource.path(namespace), query=query, body=body)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """PUT under the body's resourceVersion. Raises Conflict where somebody wrote first."""
        self._fence()
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("PUT", resource.path(namespace, name), query=query, body=body)

    async def apply(
        self, resource: Resource, namespace: str, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        """Server-side apply of the fields in `body`, which become ours."""
        self._fence()
        return await self._call(
            "PATCH",
            resource.path(namespace, name, subresource),
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            body={"apiVersion": resource.api_version, "kind": resource.kind, **body},
            content_type=_APPLY,
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: str = "",
        grace_s: int | None = None,
    ) -> None:
        """DELETE that incarnation (`uid`) and no later one of the same name; with `resource_version`, only
        as it was seen then. Raises Conflict, NotFound."""
        self._fence()
        preconditions = {"uid": uid}
        if resource_version:
            preconditions["resourceVersion"] = resource_version
        options: Object = {"preconditions": preconditions, "propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        await self._call("DELETE", resource.path(namespace, name), body=options)

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Object:
        url_path = f"{path}?{urlencode(query)}" if query else path
        timeout_s = self._timeout_s if method == "GET" else self._write_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                response = await request(self._api, method, url_path, body, content_type)
                raw = await response.read()
        except NO_ANSWER as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"{method} {path}: {reason}") from error
        if response.status >= 300:
            raise error_of(
                response.status,
                f"{method} {path}: {_message_of(raw)}",
                retry_after_s=_retry_after(response.headers.get("Retry-After")),
            )
        try:
            answer: Object = json.loads(raw)
        except ValueError as error:  # cut off, or from something that is not an API server
            raise Unavailable(f"{method} {path}: the answer is not JSON: {raw[:100]!r}") from error
        return answer


def _message_of(raw: bytes) -> str:
    """The text of a metav1.Status, or what came instead of one."""
    try:
        return str(json.loads(raw).get("message", ""))
    except (ValueError, AttributeError):
        return raw[:200].decode(errors="replace")


def _retry_after(header: str | None) -> float:
    """Seconds from a Retry-After header; dates are not used by API servers."""
    return float(header) if header is not None and header.isdecimal() else 0.0


@asynccontextmanager
async def open_client(environ: Mapping[str, str], *, timeout_s: float = 15.0) -> AsyncIterator[KubeClient]:
    """A client for the lifetime of the block."""
    client = KubeClient(open_api(await credentials(environ)), timeout_s=timeout_s)
    try:
        yield client
    finally:
        await client.close()
