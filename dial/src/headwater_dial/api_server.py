"""A connection to the API server: where it is, who we are, requests, an end that leaves no socket open."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.client.rest import RESTClientObject

DEFAULT_KUBECONFIG: Final = "~/.kube/config"
JSON: Final = "application/json"
# What `request` and the reading of its answer raise where there is none.
NO_ANSWER: Final = (TimeoutError, aiohttp.ClientError, OSError, ApiException)
_LOOKS: Final = 100
_LOOK_S: Final = 0.01


class _Rest(RESTClientObject):
    """Closes all of its sockets.

    A request that is given up leaves its TLS connection behind: aiohttp asks it to close, which waits for the
    other side's `close_notify`, and forgets it. Of a server that hangs that would be 30 s for each.
    """

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, socket_factory=self._socket)

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol = address[:3]
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made

    async def close(self) -> None:
        """Ends every connection; what the event loop has not let go of within a second is left to it."""
        await super().close()
        for left in self._open():
            with suppress(OSError):
                left.shutdown(socket.SHUT_RDWR)
        for _ in range(_LOOKS):
            if not self._open():
                return
            await asyncio.sleep(_LOOK_S)

    def _open(self) -> list[socket.socket]:
        return [made for made in self._sockets if made.fileno() >= 0]


def open_api(configuration: Configuration) -> ApiClient:
    """A client with these credentials. Close it."""
    api = ApiClient(configuration=configuration)
    api.rest_client = _Rest(configuration)
    return api


async def request(
    api: ApiClient,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    content_type: str = JSON,
    *,
    more: Mapping[str, str] | None = None,
) -> aiohttp.ClientResponse:
    """The beginning of an answer, whatever its status: its body, and a deadline over both, are the caller's.

    `path`: with its query; `more`: headers. Raises NO_ANSWER.
    """
    headers = {"Accept": JSON, "Content-Type": content_type, **(more or {})}
    made = await api.param_serialize(
        method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
    )
    response: aiohttp.ClientResponse = (await api.call_api(*made)).response
    return response


async def credentials(environ: Mapping[str, str]) -> Configuration:
    """The API server's address and credentials: the Pod's own, or $KUBECONFIG's current context.

    Raises kubernetes' ConfigException where neither is there.
    """
    if environ.get("KUBECONFIG") or not environ.get("KUBERNETES_SERVICE_HOST"):
        return await user_credentials(environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG)
    configuration = _configuration()
    kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


async def user_credentials(kubeconfig: Path | str | None, context: str | None = None) -> Configuration:
    """Those of a kubeconfig's context; of $KUBECONFIG and its current context unless told otherwise.

    Raises kubernetes' ConfigException, OSError, ValueError.
    """
    configuration = _configuration()
    await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
        config_file=str(kubeconfig) if kubeconfig else None,
        context=context,
        client_configuration=configuration,
        persist_config=False,
    )
    return configuration


def _configuration() -> Configuration:
    configuration = Configuration()
    configuration.client_session_kwargs = {"trust_env": False}  # no proxy, no .netrc
    return configuration
