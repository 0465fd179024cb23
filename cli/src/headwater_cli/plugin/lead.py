"""One participant of a meeting is led to another SFU node: by a gateway's API, through the API server."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import jwt
from headwater_api import wellknown as wk
from headwater_api.reasons import Reason
from headwater_dial.api_server import NO_ANSWER, open_api, request, user_credentials
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config.config_exception import ConfigException

from headwater_cli.errors import CliError
from headwater_cli.plugin.kubectl import Kubectl

TOKEN_S: Final = 60  # what a token is good for: each call has its own
CALL_DEADLINE_S: Final = 15.0
POLL_S: Final = 0.5
WHO: Final = "kubectl-headwater"
_AUDIENCE: Final = "HEADWATER_TOKEN_AUDIENCE"

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Errand:
    """Who is to be led, and where: to a node, the best one of a region, or (neither) the best other one."""

    meeting: str
    participant: str
    node: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway's Pod, and an API key of its installation."""

    namespace: str
    pod: str
    address: str
    port: int
    api_key: str
    api_secret: str
    audience: str = ""

    def token(self, meeting: str, now: float) -> str:
        """For one call that concerns the meeting. `now`: Unix seconds."""
        claims = {"iss": self.api_key, "sub": WHO, "exp": int(now) + TOKEN_S}
        audience = {"aud": self.audience} if self.audience else {}
        grant = {"roomAdmin": True, "room": meeting}
        return jwt.encode({**claims, **audience, "video": grant}, self.api_secret, algorithm="HS256")


def find_gateway(kubectl: Kubectl) -> Gateway:
    """One that is ready, with the key that comes first in the installation's Secret. CliError."""
    pods = kubectl.items("pods", "-l", f"{wk.LABEL_COMPONENT}={wk.COMPONENT_GATEWAY}")
    ready = next((pod for pod in pods if _is_ready(pod)), None)
    if ready is None:
        found = f"{len(pods)} gateway Pods, none of them ready" if pods else "no gateway Pod"
        raise CliError(f"{found} in this namespace: `headwater doctor` says what is wrong, or give -n")
    spec = ready["spec"]
    container = spec["containers"][0]
    ports = {port.get("name"): int(port["containerPort"]) for port in container.get("ports") or ()}
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    secret = str(((volumes.get(wk.VOLUME_API_KEYS) or {}).get("secret") or {}).get("secretName", ""))
    if not secret:
        raise CliError(f"the gateway {ready['metadata']['name']} mounts no Secret with API keys")
    key, value = _api_key(kubectl, secret)
    environment = {row["name"]: str(row.get("value", "")) for row in container.get("env") or ()}
    return Gateway(
        ready["metadata"]["namespace"],
        ready["metadata"]["name"],
        ready["status"]["podIP"],
        ports.get(wk.PORT_NAME_SIGNAL, wk.PORT_SIGNAL),
        key,
        value,
        environment.get(_AUDIENCE, ""),
    )


def _is_ready(pod: Object) -> bool:
    status = pod.get("status") or {}
    conditions = {row["type"]: row["status"] for row in status.get("conditions") or ()}
    is_leaving = bool(pod["metadata"].get("deletionTimestamp"))
    return not is_leaving and conditions.get("Ready") == "True" and bool(status.get("podIP"))


def _api_key(kubectl: Kubectl, secret: str) -> tuple[str, str]:
    try:
        data = kubectl.get("secret", secret).get("data") or {}
    except CliError as error:
        raise CliError(
            f"the gateways' API keys cannot be read, which this command signs with: {error}"
        ) from error
    for key, value in sorted(data.items()):
        if text := base64.b64decode(value).decode(errors="replace").strip():
            return key, text
    raise CliError(f"the Secret {secret} holds no API key")


async def api_of(kubeconfig: str, context: str) -> ApiClient:
    """The way to the API server, as kubectl goes it. Close it. CliError."""
    try:
        return open_api(await user_credentials(kubeconfig or None, context or None))
    except (ConfigException, OSError, ValueError) as error:
        raise CliError(f"no usable kubeconfig: {error}") from error


async def lead(
    api: ApiClient, gateway: Gateway, errand: Errand, wait_s: float, tell: Callable[[str], None]
) -> None:
    """Has it led and tells what comes of it, until it is there or `wait_s` seconds have passed. CliError.

    Closes `api`.
    """
    try:
        await _lead(_Calls(api, gateway, errand), errand, wait_s, tell)
    finally:
        await api.close()  # type: ignore[no-untyped-call]


async def _lead(calls: "_Calls", errand: Errand, wait_s: float, tell: Callable[[str], None]) -> None:
    who, before = errand.participant, await calls.do("GET")
    wish = {"node_id": errand.node, "region": errand.region}
    now = await calls.do("PUT", {name: value for name, value in wish.items() if value})
    source, goal = _place(before), _place(now)
    if now["node_id"] == before["node_id"] and not now["moving"]:
        tell(f"{who} is on {goal} already: nothing was done")
        return
    tell(f"{who} is led from {source} to {goal}")
    deadline = time.monotonic() + wait_s
    while now["moving"] and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
        now = await calls.do("GET")
    if now["moving"] and wait_s:
        raise CliError(f"{who} was not there within {wait_s:.0f} s")
    if now["moving"]:
        return
    if _place(now) != goal:
        raise CliError(f"{who} could not be led to {goal}: it joined anew and is on {_place(now)}")
    tell(f"{who} is on {goal} now, and no longer on {source}")


def _place(answer: Object) -> str:
    return f"{answer['node_id']} ({answer['region']})"


class _Calls:
    """Calls about the errand's participant."""

    def __init__(self, api: ApiClient, gateway: Gateway, errand: Errand) -> None:
        self._api, self._gateway, self._errand = api, gateway, errand
        meeting, participant = (quote(name, safe="") for name in (errand.meeting, errand.participant))
        self._path = f"/v1/meetings/{meeting}/participants/{participant}/node"

    async def do(self, method: str, body: Object | None = None) -> dict[str, Any]:
        """The gateway's answer. CliError: no, and why."""
        token = self._gateway.token(self._errand.meeting, time.time())
        status, answer = await self._through_the_api_server(method, body, token)
        if answer.get("kind") == "Status":  # the API server's own word
            refusal = f"the API server does not pass the call on: {answer.get('message', status)}"
            if not ip_address(self._gateway.address).is_loopback:
                raise CliError(refusal)
            # A cluster on one machine: the API server passes nothing on to loopback addresses.
            status, answer = await self._directly(method, body, token)
        if status != 200:
            raise CliError(self._in_words(status, answer))
        return answer

    async def _through_the_api_server(
        self, method: str, body: Object | None, token: str
    ) -> tuple[int, dict[str, Any]]:
        gateway = self._gateway
        pod = f"/api/v1/namespaces/{gateway.namespace}/pods/{gateway.pod}:{gateway.port}/proxy"
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                headers = {wk.HEADER_TOKEN: token}
                response = await request(self._api, method, pod + self._path, body, more=headers)
                return response.status, _read(await response.read())
        except NO_ANSWER as error:
            raise CliError(f"no answer by way of the API server: {error or 'too late'}") from error

    async def _directly(self, method: str, body: Object | None, token: str) -> tuple[int, dict[str, Any]]:
        url = f"http://{self._gateway.address}:{self._gateway.port}{self._path}"
        timeout = aiohttp.ClientTimeout(total=CALL_DEADLINE_S)
        headers = {wk.HEADER_TOKEN: token}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, url, json=body, headers=headers) as response,
            ):
                return response.status, _read(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CliError(f"the gateway {self._gateway.pod} does not answer: {error}") from error

    def _in_words(self, status: int, answer: Object) -> str:
        errand, error = self._errand, answer.get("error") or {}
        match error.get("reason"):
            case Reason.ROOM_NOT_FOUND:
                return f"nobody is in a meeting {errand.meeting!r} now: `kubectl get meetings` lists them"
            case Reason.PARTICIPANT_NOT_FOUND:
                return f"nobody with the identity {errand.participant!r} is in the meeting {errand.meeting!r}"
            case _:
                asked = (
                    f" (asked for: {errand.node or errand.region})" if errand.node or errand.region else ""
                )
                return f"{errand.participant} stays where it is: {error.get('message', status)}{asked}"


def _read(raw: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(raw)
    except ValueError:
        return {"error": {"message": raw[:200].decode(errors="replace")}}
    return answer if isinstance(answer, dict) else {}
