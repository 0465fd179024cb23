"""All TURN servers that this gateway knows: its clusters' own nodes and other people's."""

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from pathlib import Path
from typing import Final

import aiohttp
import structlog
from headwater_api.fleet_policy import Turn
from headwater_api.ids import ClusterName, NodeId, ParticipantSid, RegionName
from headwater_api.turn_token import watch_token
from headwater_planner.geo_distance import Coordinates
from headwater_planner.turn_servers import IceServer, TurnNode, ice_servers, tls_host_of
from livekit.protocol import rtc

from headwater_gateway.backoff import Backoff
from headwater_gateway.tasks import report
from headwater_gateway.turn.follow import Account, Follower, TurnPod

log = structlog.get_logger(__name__)
# TURN nodes by hand, for gateways without Kubernetes: "name=region@ip,…", and the secrets' references.
ENV_STATIC_TURN: Final = "HEADWATER_STATIC_TURN"
ENV_STATIC_TURN_SECRETS: Final = "HEADWATER_STATIC_TURN_SECRETS"
SECRET_TTL_S: Final = 2.0
MAX_SECRET: Final = 256


class TurnServers:
    """Owner of the followers' tasks; `aclose` ends them."""

    def __init__(
        self,
        node_token: str,
        secrets_dir: Path | None,
        regions: Callable[[], Mapping[RegionName, Coordinates | None]],
        cluster_of: Callable[[NodeId], ClusterName | None],
        on_leave: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._headers = {"Authorization": f"Bearer {watch_token(node_token)}"}
        self._secrets_dir, self._regions, self._cluster_of = secrets_dir, regions, cluster_of
        self._on_leave = on_leave
        self._clock, self._unix_s = clock, unix_s
        self._rng = random.Random()
        self._policies: dict[ClusterName | None, Turn] = {}
        self._followers: dict[str, Follower] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None
        self._secrets: dict[str, tuple[float, str]] = {}

    # -- what the watches say --------------------------------------------------------------------

    def policy_seen(self, cluster: ClusterName | None, turn: Turn) -> None:
        """spec.turn of an SFUCluster."""
        self._policies[cluster] = turn

    def policy_gone(self, cluster: ClusterName) -> None:
        self._policies.pop(cluster, None)

    def pod_seen(self, pod: TurnPod) -> None:
        """A Pod that runs, with an address."""
        known = self._followers.get(pod.name)
        if known is not None and known.pod == pod:
            known.pod = pod
            return
        self.pod_gone(pod.name, "its Pod has a new address")
        if self._http is None:
            self._http = aiohttp.ClientSession(headers=self._headers, trust_env=False)
        follower = Follower(pod, self._http, Backoff(self._rng), lambda p, _: self._on_leave(p.ip))
        self._followers[pod.name] = follower
        task = asyncio.create_task(follower.run(), name=f"turn {pod.name}", context=Context())
        report(task, "turn.follower_died")
        self._tasks[pod.name] = task

    def pod_gone(self, name: str, why: str = "its Pod is gone") -> None:
        follower = self._followers.pop(name, None)
        if follower is None:
            return
        follower.lose(why)
        task = self._tasks.pop(name)
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    # -- what clients are told -------------------------------------------------------------------

    def for_client(self, near: RegionName, sid: ParticipantSid, node: NodeId) -> list[rtc.ICEServer]:
        """The servers for a participant on that SFU node, nearest first."""
        if not self._followers and not any(p.external_servers for p in self._policies.values()):
            return []
        cluster = self._cluster_of(node)
        policy = self._policies.get(cluster, Turn())
        references = [f"{ref.name}/{ref.key}" for ref in policy.shared_secret_refs]
        nodes = [
            self._node(follower.pod, account, policy, references)
            for follower in self._followers.values()
            if (account := follower.account) is not None and account.ready
            if follower.pod.cluster == cluster
        ]
        signer = next((s for r in references if (s := self._secret(r))), "")
        servers = ice_servers(
            nodes,
            self._regions(),
            near,
            sid,
            now=int(self._unix_s()),
            external=[(url, signer) for url in policy.external_servers],
        )
        return [_wire(server) for server in servers]

    def ready(self) -> dict[RegionName, int]:
        """TURN nodes that clients are sent to, by region."""
        counts: dict[RegionName, int] = {}
        for follower in self._followers.values():
            serves = follower.account is not None and follower.account.ready
            counts[follower.pod.region] = counts.get(follower.pod.region, 0) + serves
        return counts

    def _node(self, pod: TurnPod, account: Account, policy: Turn, references: Sequence[str]) -> TurnNode:
        """The first reference signs that the node is known to take: during a rotation nodes differ."""
        signer = next((s for r in references if r in account.accepted and (s := self._secret(r))), "")
        ip = pod.external or pod.ip
        host = tls_host_of(ip, policy.tls_domain or "") if account.tls_port else ""
        return TurnNode(pod.name, pod.region, ip, signer, host, account.tls_port)

    def _secret(self, reference: str) -> str:
        """The mounted value, SECRET_TTL_S old at most; empty where there is none."""
        if self._secrets_dir is None:
            return ""
        at, value = self._secrets.get(reference, (float("-inf"), ""))
        if self._clock() - at < SECRET_TTL_S:
            return value
        try:
            value = (self._secrets_dir / reference).read_text(encoding="utf-8").strip()[:MAX_SECRET]
        except (OSError, UnicodeDecodeError):
            value = ""
        self._secrets[reference] = (self._clock(), value)
        return value

    async def aclose(self) -> None:
        """End every follower."""
        tasks = [*self._tasks.values(), *self._ending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._followers.clear()
        self._tasks.clear()
        if self._http is not None:
            await self._http.close()


def _wire(server: IceServer) -> rtc.ICEServer:
    return rtc.ICEServer(urls=server.urls, username=server.username, credential=server.credential)


class InvalidStatic(ValueError):
    """An entry of HEADWATER_STATIC_TURN that cannot be read."""


def static_turn(env: Mapping[str, str] = os.environ) -> tuple[tuple[TurnPod, ...], Turn]:
    """Nodes and policy of the environment. Raises InvalidStatic, naming the entry."""
    pods = []
    for entry in filter(None, (part.strip() for part in env.get(ENV_STATIC_TURN, "").split(","))):
        name, _, rest = entry.partition("=")
        region, _, ip = rest.partition("@")
        if not name or not region or not ip:
            raise InvalidStatic(f"{ENV_STATIC_TURN}: {entry!r} is not name=region@ip")
        pods.append(TurnPod(name, RegionName(region), ip))
    references = []
    for reference in filter(None, env.get(ENV_STATIC_TURN_SECRETS, "").split(",")):
        name, _, key = reference.partition("/")
        references.append({"name": name, "key": key})
    return tuple(pods), Turn.model_validate({"sharedSecretRefs": references})
