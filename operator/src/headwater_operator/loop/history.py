"""The load history of fleets that are forecast, a ConfigMap each: a restart must not cost two seasons.

A help and not a truth: what cannot be read or written is done without.
"""

import json
from typing import Final

import structlog
from headwater_api import wellknown as wk
from headwater_api.sfucluster import SFUCluster
from headwater_planner.scale.history import History, from_json, to_json

from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.errors import KubeError, NotFound, NotLeader
from headwater_operator.kube.resources import CONFIG_MAPS
from headwater_operator.render.pod import owner_of

log = structlog.get_logger(__name__)
_KEY: Final = "history.json"


def history_name(cluster: str) -> str:
    """Of the fleet's ConfigMap."""
    return f"{cluster}-load-history"


class HistoryStore:
    """One for the whole operator. Raises NotLeader only."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def load(self, cluster: SFUCluster) -> History:
        """What was kept; empty where there is nothing."""
        metadata = cluster.metadata
        try:
            body = await self._client.get(CONFIG_MAPS, metadata.namespace, history_name(metadata.name))
            return from_json(json.loads((body.get("data") or {}).get(_KEY, "{}")))
        except NotFound:
            return History()
        except (KubeError, ValueError) as error:
            log.warning("load history cannot be read", cluster=metadata.name, error=str(error))
            return History()

    async def save(self, cluster: SFUCluster, history: History) -> None:
        """Keeps it."""
        metadata = cluster.metadata
        name = history_name(metadata.name)
        body = {
            "metadata": {
                "name": name,
                "namespace": metadata.namespace,
                "labels": {wk.LABEL_MANAGED_BY: wk.MANAGED_BY, wk.LABEL_CLUSTER: metadata.name},
                "ownerReferences": [owner_of(cluster)],
            },
            "data": {_KEY: json.dumps(to_json(history))},
        }
        try:
            await self._client.apply(CONFIG_MAPS, metadata.namespace, name, body)
        except NotLeader:
            raise
        except KubeError as error:
            log.warning("load history cannot be kept", cluster=metadata.name, error=str(error))
