"""Status writes: by server-side apply, only when something changed, at most ten a second in all."""

from collections.abc import Callable
from typing import Final

from headwater_api.meeting import MeetingStatus
from headwater_api.sfucluster import SFUClusterStatus

from headwater_operator.kube.client import KubeClient, Object
from headwater_operator.kube.errors import KubeError, NotFound
from headwater_operator.kube.limits import TokenBucket
from headwater_operator.kube.resources import Resource
from headwater_operator.metrics import Metrics

WRITES_PER_S: Final = 10.0


class StatusWriter:
    """Writes the whole status that we own; whoever removed a field of it gets it back."""

    def __init__(self, client: KubeClient, *, monotonic: Callable[[], float], metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._bucket = TokenBucket(rate_per_s=WRITES_PER_S, burst=10, monotonic=monotonic)

    async def write(
        self, resource: Resource, namespace: str, name: str, status: SFUClusterStatus | MeetingStatus
    ) -> Object | None:
        """The object as it is afterwards; None where it is gone. Raises Conflict, Unavailable, Refused."""
        await self._bucket.take()
        outcomes = self._metrics.status_writes
        body = {"metadata": {"name": name, "namespace": namespace}, "status": status.to_kubernetes()}
        try:
            written = await self._client.apply(resource, namespace, name, body, subresource="status")
        except NotFound:
            outcomes.labels(kind=resource.kind, outcome="gone").inc()
            return None
        except KubeError:
            outcomes.labels(kind=resource.kind, outcome="failed").inc()
            raise
        outcomes.labels(kind=resource.kind, outcome="written").inc()
        return written
